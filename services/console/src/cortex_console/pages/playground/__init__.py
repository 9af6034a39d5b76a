"""Playground: try a model."""

from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.components.text import box
from cortex_console.components.toggle import toggle
from cortex_console.pages.playground.chat import ChatPanel
from cortex_console.pages.playground.gateway import Playground
from cortex_console.pages.playground.tries import EmbeddingsPanel, RerankPanel
from cortex_console.ports import Batch
from cortex_contracts.rights import Right

TABS = {"chat": "Chat", "embed": "Embeddings", "rerank": "Rerank"}


async def build(context: PageContext) -> None:
    """Draw the page."""
    playground = Playground(context)
    await playground.read_models()
    chosen = context.query.get("tab", "chat")
    chat = ChatPanel(playground)
    panels = {"chat": chat, "embed": EmbeddingsPanel(playground), "rerank": RerankPanel(playground)}
    with page_header("Playground", "Try what runs here, as your programs would see it."):
        choice = toggle("What to try", TABS, chosen)
    boxes = {name: box("pg-panel") for name in TABS}
    drawn: set[str] = set()

    async def show() -> None:
        for name, element in boxes.items():
            element.visible = name == choice.value
        if choice.value not in drawn:
            drawn.add(choice.value)
            with boxes[choice.value]:
                await panels[choice.value].build()

    async def on_events(batch: Batch) -> None:
        if batch.has("model.", "upstream.", "container."):
            await playground.read_models()
            for name in drawn:
                panels[name].show_models()
        if batch.resync and "chat" in drawn:
            await chat.keep_again()

    choice.on_value_change(show)
    await show()
    context.on_events(on_events)


PLAYGROUND = Page("/playground", "Playground", build, Right.SELF, icon="o_forum", group="Serve")
