"""How fast it is, over time and now."""

from nicegui import ui

from cortex_console.components.chart import FAILED, Chart, line_chart
from cortex_console.components.text import Text, box, card, hint
from cortex_console.domain.formatting import NOTHING, duration_text
from cortex_console.domain.rates import SPANS, Rates, rates
from cortex_console.domain.shapes import Row, number
from cortex_console.pages.model_page.shared import ModelView
from cortex_console.ports import Batch

RELOAD_S = 15.0
_PERCENTILES = (("p50", "Median"), ("p90", "90 %"), ("p95", "95 %"), ("p99", "99 %"))
_NOTHING = Rates([], [], [], [], [], [])


class MetricsPart:
    """Below the tab Metrics."""

    def __init__(self, view: ModelView) -> None:
        self._view = view
        self._rates = _NOTHING
        self._live: list[Chart] = []
        self._past: list[Chart] = []
        self._timer: ui.timer | None = None

    async def build(self) -> None:
        """Draw it."""
        context = self._view.context
        with box("c-filters"):
            spans = {name: span.label for name, span in SPANS.items()}
            self._span = ui.select(spans, value="1h", on_change=self._read).props("outlined dense options-dense")
            self._span.classes("c-select").props('aria-label="Span of time"')
            box("c-spring")
            self._count = Text("span", "", "c-hint").props('role="status"')
        await self._load()
        with box("c-columns"):
            with card():
                self._past.append(
                    line_chart(
                        context,
                        "Requests",
                        "per second",
                        lambda: {"all": self._rates.requests, FAILED: self._rates.failed},
                    )
                )
            with card():
                self._past.append(
                    line_chart(
                        context,
                        "Tokens",
                        "per second",
                        lambda: {"in": self._rates.prompt_tokens, "out": self._rates.completion_tokens},
                    )
                )
            with card():
                self._past.append(
                    line_chart(context, "Time to the first token", "ms", lambda: {"mean": self._rates.ttft})
                )
            with card():
                self._past.append(
                    line_chart(context, "Time per token after it", "ms", lambda: {"mean": self._rates.per_token})
                )
            with card():
                self._live.append(line_chart(context, "Requests in the engine", "requests", self._queue))
            with card():
                self._live.append(line_chart(context, "KV cache in use", "%", self._kv))
        hint("The last two show what the engines said at their probes since this page was opened.")
        with card("Percentiles"):
            self._percentiles = box("c-stack")
        await self._show_percentiles()
        self._timer = ui.timer(RELOAD_S, self._read, immediate=False)

    async def refresh(self) -> None:
        """The model was read anew."""
        for chart in self._live:
            chart.update()

    async def on_batch(self, batch: Batch) -> None:
        """Nothing: usage has no events."""

    def leave(self) -> None:
        """Stop reading."""
        if self._timer is not None:
            self._timer.cancel()

    async def _read(self) -> None:
        await self._load()
        for chart in self._past:
            chart.update()
        await self._show_percentiles()

    async def _load(self) -> None:
        span = SPANS[str(self._span.value)]
        query = {"model": self._view.detail.summary.id, "hours": span.hours, "bucket": span.bucket}
        self._rates = rates(await self._view.api.series(query), span.bucket)
        self._count.text = "Nothing was asked in this time." if self._rates.is_empty else ""

    async def _show_percentiles(self) -> None:
        span = SPANS[str(self._span.value)]
        ttft, whole = await self._view.api.percentiles({"model": self._view.detail.summary.id, "hours": span.hours})
        self._percentiles.clear()
        with self._percentiles, box("c-simple-table", "table"):
            with box("", "thead"), box("", "tr"):
                for name in ("", "Requests", *(label for _, label in _PERCENTILES)):
                    Text("th", name).props('scope="col"')
            with box("", "tbody"):
                _percentile_row("First token", ttft)
                _percentile_row("Whole answer", whole)

    def _queue(self) -> dict[str, list[list[object]]]:
        samples = self._view.samples
        return {
            "working": [[one.at.isoformat(), one.load.running] for one in samples],
            "waiting": [[one.at.isoformat(), one.load.waiting] for one in samples],
        }

    def _kv(self) -> dict[str, list[list[object]]]:
        samples = self._view.samples
        return {"fullest replica": [[one.at.isoformat(), _percent(one.load.kv_usage)] for one in samples]}


def _percentile_row(label: str, sums: Row) -> None:
    with box("", "tr"):
        Text("th", label).props('scope="row"')
        Text("td", f"{number(sums.get('count')) or 0:.0f}")
        for name, _ in _PERCENTILES:
            value = number(sums.get(name))
            Text("td", NOTHING if value is None else duration_text(value / 1000))


def _percent(share: float | None) -> float | None:
    return None if share is None else round(share * 100, 1)
