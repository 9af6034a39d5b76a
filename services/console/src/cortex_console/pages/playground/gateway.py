"""What the panels of the playground share: the models there are, and the gateway with the user's own key."""

from cortex_console.adapters.playground_gateway import PlaygroundGateway
from cortex_console.components.buttons import link_button
from cortex_console.components.empty import empty_state
from cortex_console.components.page import PageContext
from cortex_console.domain.play_models import PlayModel, choices
from cortex_console.domain.shapes import rows
from cortex_contracts.rights import Right

_NOUNS = {"generate": "a chat model", "embed": "an embedding model", "rerank": "a reranking model"}


class Playground:
    """Of one browser."""

    def __init__(self, context: PageContext) -> None:
        self.context = context
        shared = context.installation
        self.gateway = PlaygroundGateway(shared.gateway, shared.playground_keys, context.api)
        self.models: list[PlayModel] = []

    async def read_models(self) -> None:
        """Read them anew. Raises ConsoleError."""
        answer = await self.context.api.get("/models")
        found = [PlayModel.of(one) for one in rows(answer.get("items"))]
        self.models = sorted(found, key=lambda model: model.served_name)

    def choices(self, task: str, chosen: str = "") -> dict[str, str]:
        """What a list of models offers."""
        return choices(self.models, task, chosen)

    def nothing_runs(self, task: str) -> None:
        """What to do when no model of this task answers."""
        noun = _NOUNS[task]
        if self.context.may(Right.MODELS_OPERATE):
            text, label = f"Start {noun}; it appears here as soon as it answers.", "Models"
        else:
            text, label = f"An operator has to start {noun}; it appears here as soon as it answers.", "See the models"
        empty_state(
            "o_forum",
            f"No {noun.partition(' ')[2]} is running",
            text,
            lambda: link_button(label, "/models", icon="o_smart_toy"),
        )
