"""Text in the element that says what it is, and plain containers."""

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement


class Text(TextElement):
    """`<tag>text</tag>`; the text is never taken for HTML."""

    def __init__(self, tag: str, text: str, classes: str = "") -> None:
        super().__init__(tag=tag, text=text)
        if classes:
            self.classes(classes)


def labelled(element: ui.element, label: str) -> ui.element:
    """Name it for those who do not see it. Any text is safe here, which it is not in `props("…")`."""
    element.props["aria-label"] = label
    return element


def heading(text: str, level: int = 2) -> Text:
    """A heading; each page has one of level 1, which `page_header` makes."""
    return Text(f"h{level}", text, f"c-h{level}")


def paragraph(text: str, classes: str = "") -> Text:
    """A paragraph of body text."""
    return Text("p", text, f"c-p {classes}")


def hint(text: str) -> Text:
    """Small print."""
    return Text("p", text, "c-hint")


def code(text: str) -> Text:
    """A short piece of code, a name, an id."""
    return Text("code", text, "c-code")


def box(classes: str = "", tag: str = "div") -> ui.element:
    """A container with classes of assets/*.css."""
    made = ui.element(tag)
    return made.classes(classes) if classes else made


def card(title: str = "", classes: str = "") -> ui.element:
    """A surface with an optional heading; use it as a context."""
    made = box(f"c-card {classes}", "section")
    if title:
        with made:
            heading(title, 2)
    return made


def stack() -> ui.element:
    """Things below each other."""
    return box("c-stack")


def line(classes: str = "") -> ui.element:
    """Things beside each other; they wrap on a narrow screen."""
    return box(f"c-line {classes}")


def facts(pairs: dict[str, str]) -> ui.element:
    """Names and values."""
    made = box("c-facts", "dl")
    with made:
        for name, value in pairs.items():
            with box(""):
                Text("dt", name)
                Text("dd", value)
    return made
