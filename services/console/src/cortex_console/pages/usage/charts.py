"""Requests and tokens over time."""

from typing import Any

from cortex_console.components.chart import Chart, Options
from cortex_console.components.page import PageContext
from cortex_console.components.text import box, card
from cortex_console.domain.shapes import Row
from cortex_console.domain.usage import series_of
from cortex_console.theme import palette

_REQUESTS = {
    "completed": "completed",
    "client_disconnected": "client left",
    "rejected": "refused",
    "upstream_error": "failed",
}
_TOKENS = {"prompt_tokens": "in", "completion_tokens": "out"}


class UsageCharts:
    """Two beside each other."""

    def __init__(self, context: PageContext) -> None:
        self._answer: Row = {}
        with box("c-columns"):
            with card("Requests"):
                self._requests = Chart(context, "Requests over time", self._of_requests)
            with card("Tokens"):
                self._tokens = Chart(context, "Tokens over time", self._of_tokens)

    def show(self, answer: Row) -> None:
        """Draw this answer of /admin/usage/series."""
        self._answer = answer
        self._requests.update()
        self._tokens.update()

    def _of_requests(self, dark: bool) -> Options:
        colours = palette(dark)
        return _bars(
            series_of(self._answer, _REQUESTS),
            [colours.series[0], colours.series[5], colours.series[2], colours.series[4]],
        )

    def _of_tokens(self, dark: bool) -> Options:
        colours = palette(dark)
        return _bars(series_of(self._answer, _TOKENS), list(colours.series[:2]))


def _bars(series: dict[str, list[list[Any]]], colours: list[str]) -> Options:
    return {
        "color": colours,
        "xAxis": {"type": "time", "splitLine": {"show": False}},
        "yAxis": {"type": "value", "minInterval": 1},
        "series": [
            {"name": name, "type": "bar", "stack": "all", "barMaxWidth": 22, "data": data}
            for name, data in series.items()
        ],
    }
