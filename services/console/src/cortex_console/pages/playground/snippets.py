"""A request as curl and as Python, to copy."""

from collections.abc import Mapping

from cortex_console.components.buttons import button
from cortex_console.components.dialogs import dialog
from cortex_console.components.secret import copy_button
from cortex_console.components.text import Text, box, heading, labelled
from cortex_console.components.toggle import toggle
from cortex_console.domain.snippets import KEY_VARIABLE


async def show_snippets(snippets: Mapping[str, str]) -> None:
    """Each under its name; the API key is a variable in all of them."""
    first = next(iter(snippets))
    with dialog("Copy as code") as made:
        heading("Copy as code", 2)
        Text("p", f"Put an API key of yours into ${KEY_VARIABLE}; make one under API keys.", "c-hint")
        choice = toggle("Language", {name: name for name in snippets}, first)
        for name, text in snippets.items():
            with box("c-stack") as part:
                labelled(Text("pre", text, "c-pre pg-snippet").props('tabindex="0"'), name)
                with box("c-dialog-foot"):
                    button("Close", made.close, kind="quiet")
                    copy_button(text, kind="primary")
            part.bind_visibility_from(choice, "value", value=name)
    await made
    made.delete()
