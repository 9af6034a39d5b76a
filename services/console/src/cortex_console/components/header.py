"""The head of a page: where one is, what it is about, what can be done."""

from nicegui import ui

from cortex_console.components.text import Text, box


def page_header(title: str, text: str = "", *, back: tuple[str, str] | None = None) -> ui.element:
    """Title and a sentence; use it as a context for the buttons. `back` is the address and name of what is above."""
    with box("c-page-head"):
        with box("c-page-head-text"):
            if back is not None:
                with ui.link(target=back[0]).classes("c-back"):
                    ui.icon("o_arrow_back").props('aria-hidden="true"')
                    Text("span", back[1])
            Text("h1", title, "c-h1")
            if text:
                Text("p", text, "c-page-lead")
        return box("c-page-actions")
