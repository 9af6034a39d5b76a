"""Markdown of models, drawn without trust: raw HTML stays text, no images, and the browser sanitises what is left once more."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from nicegui import ui
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_by_name  # pyright: ignore[reportUnknownVariableType] - its options have no types
from pygments.util import ClassNotFound

MAX_COLOURED = 20_000
"""Longer code keeps one colour: what a model writes must not keep this process busy."""


def render(text: str, *, colours: bool = True) -> str:
    """HTML of the text. Without `colours` code is cheap to draw, as while it still grows."""
    return _COLOURED.render(text) if colours else _PLAIN.render(text)


class Markdown:
    """A piece of it that may grow."""

    def __init__(self, text: str = "") -> None:
        self.element = ui.html(render(text)).classes("c-md")

    def show(self, text: str, *, growing: bool = False) -> None:
        """Draw this text instead."""
        self.element.set_content(render(text, colours=not growing))


def _parser(colours: bool) -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "breaks": True})
    made.enable(["table", "strikethrough"]).disable(["image", "html_block", "html_inline"])

    def code(_: RendererHTML, tokens: Sequence[Token], index: int, __: Any, ___: Mapping[str, Any]) -> str:
        return _code(tokens[index].content, tokens[index].info, colours)

    made.add_render_rule("fence", code)
    made.add_render_rule("code_block", code)
    return made


def _code(content: str, info: str, colours: bool) -> str:
    language = (info.split() or [""])[0][:40]
    inner = _coloured(content, language) if colours and language and len(content) <= MAX_COLOURED else escape(content)
    # A region that scrolls has to be reachable by keyboard.
    return (
        f'<div class="c-md-code"><div class="c-md-head"><span>{escape(language) or "code"}</span>'
        '<button type="button" class="c-md-copy"><span class="block">Copy</span></button></div>'
        f'<pre tabindex="0"><code>{inner}</code></pre></div>\n'
    )


def _coloured(content: str, language: str) -> str:
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return escape(content)
    return highlight(content, lexer, HtmlFormatter(nowrap=True, classprefix="c-k-"))


_COLOURED, _PLAIN = _parser(colours=True), _parser(colours=False)
