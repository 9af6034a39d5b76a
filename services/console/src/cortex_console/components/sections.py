"""Links between the pages of one area."""

from collections.abc import Sequence
from dataclasses import dataclass

from nicegui import ui

from cortex_console.components.page import PageContext
from cortex_console.components.text import Text, box
from cortex_contracts.rights import Right


@dataclass(frozen=True, slots=True)
class Section:
    """One of them."""

    path: str
    title: str
    right: Right


def section_links(context: PageContext, label: str, sections: Sequence[Section]) -> None:
    """Draw them; the present one is marked, those without a right are left out."""
    here = context.page.path
    with box("c-sections", "nav").props(f'aria-label="{label}"'):
        for section in sections:
            if not context.may(section.right):
                continue
            with ui.link(target=section.path).classes("c-section-link") as link:
                Text("span", section.title)
            if here == section.path or (section.path != sections[0].path and here.startswith(f"{section.path}/")):
                link.props('aria-current="page"')
