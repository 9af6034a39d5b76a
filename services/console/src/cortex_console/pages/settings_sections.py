"""What the pages below Settings share."""

from nicegui import ui

from cortex_console.components.header import page_header
from cortex_console.components.page import PageContext
from cortex_console.components.sections import Section, section_links
from cortex_contracts.rights import Right

SETTINGS_PATH = "/settings"
_SECTIONS = (
    Section(SETTINGS_PATH, "General", Right.SELF),
    Section("/settings/upstreams", "Upstreams", Right.MODELS_READ),
    Section("/settings/webhooks", "Webhooks", Right.WEBHOOKS_READ),
    Section("/settings/backups", "Backups", Right.BACKUPS_READ),
)


def settings_header(context: PageContext, title: str, text: str) -> ui.element:
    """The links between them, then the head of the page; use it as a context for the buttons."""
    section_links(context, "Settings", _SECTIONS)
    return page_header(title, text)
