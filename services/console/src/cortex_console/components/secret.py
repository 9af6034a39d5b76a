"""What is shown once: a password, a token, a webhook's secret."""

import json

from nicegui import ui

from cortex_console.components.buttons import Kind, button
from cortex_console.components.dialogs import dialog
from cortex_console.components.text import Text, box, heading


def copy_button(text: str, label: str = "Copy", *, kind: Kind = "plain") -> ui.button:
    """Puts the text into the clipboard, in the browser itself, and says that it did."""
    made = ui.button(label, icon="o_content_copy", color=None)
    made.props("no-caps unelevated").classes(f"c-button c-button-{kind}")
    made.on("click", js_handler=f"(event) => window.cortexCopy({json.dumps(text)}, event.currentTarget)")
    return made


async def show_secret(title: str, text: str, secret: str, *, label: str = "Secret") -> None:
    """Show it until they say that they have it; clicking elsewhere does not lose it."""
    with dialog(title) as made:
        made.props("persistent")
        heading(title, 2)
        Text("p", text, "c-p")
        with box("c-secret"):
            Text("code", secret, "c-secret-text").props["aria-label"] = label
        Text("p", "It is shown now and never again.", "c-hint")
        with box("c-dialog-foot"):
            copy_button(secret)
            button("I have it", lambda: made.submit(True), kind="primary")
    await made
    made.delete()
