"""The guide for whoever administers Cortex for the first time."""

from collections.abc import Callable
from importlib.resources import files

from nicegui import ui

from cortex_console.components.filters import search_field
from cortex_console.components.header import page_header
from cortex_console.components.page import Page, PageContext
from cortex_console.components.secret import copy_button
from cortex_console.components.text import Text, box, heading
from cortex_console.domain.guide import Block, Kind, Section, pieces, sections
from cortex_contracts.rights import Right

_SOURCE = (files("cortex_console") / "assets" / "guide.md").read_text("utf-8")
_LISTS = {Kind.LIST: "ul", Kind.STEPS: "ol"}


class GuidePage:
    """The page of one browser."""

    def __init__(self, context: PageContext) -> None:
        self._sections = sections(_SOURCE.replace("{gateway_url}", context.installation.gateway_url))
        self._drawn: list[tuple[Section, ui.element, ui.element]] = []

    async def build(self) -> None:
        """Draw it."""
        page_header("Guide", "From the first model to the daily run of an installation.")
        with box("c-guide"):
            with box("c-guide-side", "nav").props('aria-label="Sections of the guide"'):
                self._search = search_field("Search the guide", self._show, placeholder="Search the guide")
                links = [self._link(section) for section in self._sections]
            with box("c-guide-text"):
                self._nothing = Text("p", "Nothing in the guide has these words.", "c-hint").props('role="status"')
                bodies = [_section(section) for section in self._sections]
        self._drawn = list(zip(self._sections, links, bodies, strict=True))
        self._show()

    def _link(self, section: Section) -> ui.element:
        with ui.link(target=f"/guide#{section.anchor}").classes("c-guide-link") as made:
            Text("span", section.title)
        return made

    def _show(self) -> None:
        wanted = self._search.value or ""
        found = False
        for section, link, body in self._drawn:
            link.visible = body.visible = section.matches(wanted)
            found = found or body.visible
        self._nothing.visible = not found


def _section(section: Section) -> ui.element:
    with box("c-guide-section", "section") as made:
        made.props["id"] = section.anchor
        heading(section.title)
        for block in section.blocks:
            _block(block)
    return made


def _block(block: Block) -> None:
    if block.kind is Kind.CODE:
        text = "\n".join(block.lines)
        with box("c-guide-code"):
            Text("pre", text, "c-pre").props('tabindex="0"')
            copy_button(text, kind="quiet")
        return
    if block.kind is Kind.PARAGRAPH:
        _line("p", " ".join(block.lines))
        return
    with box("c-guide-list", _LISTS[block.kind]):
        for line in block.lines:
            _line("li", line)


def _line(tag: str, line: str) -> None:
    drawers: dict[str, Callable[[str], object]] = {
        "code": lambda text: Text("code", text, "c-code"),
        "strong": lambda text: Text("strong", text),
        "em": lambda text: Text("em", text),
        "": lambda text: Text("span", text),
    }
    with box("", tag):
        for piece in pieces(line):
            if piece.href:
                with ui.link(target=piece.href):
                    Text("span", piece.text)
            else:
                drawers[piece.style](piece.text)


async def build(context: PageContext) -> None:
    """Draw the page."""
    await GuidePage(context).build()


GUIDE = Page("/guide", "Guide", build, Right.SELF, icon="o_menu_book", group="More")
