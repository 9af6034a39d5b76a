"""Charts whose colours follow the theme while it changes."""

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from cortex_console import theme
from cortex_console.components.page import PageContext
from cortex_console.components.text import Text, box, labelled

Options = dict[str, Any]
FAILED = "failed or refused"
"""The name of a line that has the colour of what is bad."""


class Chart:
    """An ECharts chart. `build` makes its options for a theme, and is called again when the theme changes."""

    def __init__(
        self, context: PageContext, label: str, build: Callable[[bool], Options], *, height: int = 220
    ) -> None:
        self._context = context
        self._build = build
        self._label = label
        with labelled(box("c-chart").props('role="img"'), label):
            self.element = ui.echart(self._options()).style(f"height:{height}px")
        context.theme.on_change(self.update)

    def update(self) -> None:
        """Draw anew."""
        self.element.options.clear()
        self.element.options.update(self._options())
        self.element.update()

    def _options(self) -> Options:
        dark = self._context.theme.dark
        own = self._build(dark)
        axis = theme.chart_axis(dark)
        for name in ("xAxis", "yAxis"):
            if isinstance(own.get(name), dict):
                own[name] = axis | own[name]
        described = {"aria": {"enabled": True, "label": {"description": self._label}}}
        return theme.chart_options(dark) | described | own


def line_chart(context: PageContext, title: str, unit: str, series: Callable[[], dict[str, list[list[Any]]]]) -> Chart:
    """Lines over time. `series` gives, for each name, pairs of an ISO time and a value; null is a gap."""

    def build(dark: bool) -> Options:
        lines = [
            {
                "name": name,
                "type": "line",
                "showSymbol": False,
                "connectNulls": False,
                "lineStyle": {"width": 2},
                "data": data,
            }
            | dots(data)
            | ({"color": theme.palette(dark).bad} if name == FAILED else {})
            for name, data in series().items()
        ]
        return {"xAxis": {"type": "time"}, "yAxis": {"type": "value"}, "series": lines}

    with box("c-chart-title"):
        Text("h3", title, "c-h3")
        Text("span", unit, "c-hint")
    return Chart(context, f"{title} in {unit}", build)


def dots(data: Sequence[Sequence[Any]]) -> Options:
    """A value between gaps makes no line: it is drawn as a dot."""
    known = [False, *(value is not None for _, value in data), False]
    alone = {at for at in range(len(data)) if known[at + 1] and not known[at] and not known[at + 2]}
    if not alone:
        return {}
    dot = {"symbol": "circle", "symbolSize": 6}
    points = [{"value": list(point)} | dot if at in alone else point for at, point in enumerate(data)]
    return {"showSymbol": True, "symbol": "none", "data": points}
