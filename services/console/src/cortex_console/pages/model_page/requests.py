"""The last requests for the model."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cortex_console.components import table
from cortex_console.components.buttons import link_button
from cortex_console.components.empty import empty_state
from cortex_console.components.filters import choice
from cortex_console.components.paging import Paging
from cortex_console.components.text import Text, box
from cortex_console.domain.formatting import NOTHING, count_text, duration_text, time_cells
from cortex_console.domain.shapes import Row, number, rows, text
from cortex_console.domain.states import Tone
from cortex_console.pages.model_page.shared import ModelView
from cortex_console.ports import Batch

PAGE = 50
_OUTCOMES: Mapping[str, tuple[str, Tone]] = {
    "completed": ("completed", Tone.GOOD),
    "client_disconnected": ("client left", Tone.WARN),
    "upstream_error": ("engine failed", Tone.BAD),
    "rejected": ("refused", Tone.WARN),
}
_COLUMNS = (
    table.Column("at", "When", table.TIME, sort_by="-"),
    table.Column("outcome", "Outcome", table.BADGE, sort_by="-"),
    table.Column("status", "Status", align="right", sort_by="-"),
    table.Column("route", "Route", table.MONO, sort_by="-"),
    table.Column("tokens", "Tokens in, out", align="right", sort_by="-"),
    table.Column("ttft", "First token", align="right", sort_by="-"),
    table.Column("duration", "Took", align="right", sort_by="-"),
    table.Column("replica", "Replica", align="right", sort_by="-"),
)


class RequestsPart:
    """Below the tab Requests."""

    def __init__(self, view: ModelView) -> None:
        self._view = view

    async def build(self) -> None:
        """Draw it."""
        with box("c-filters"):
            outcomes = {name: words for name, (words, _) in _OUTCOMES.items()}
            self._outcome = choice("Outcome", outcomes, self._anew)
            box("c-spring")
            self._count = Text("span", "", "c-hint").props('role="status"')
            link_button("Usage", "/usage", icon="o_bar_chart")
        self._empty = box("")
        self._table = table.Table("Requests", _COLUMNS, page_size=0)
        self._paging = Paging(self._table, self._read, noun="request", count=self._count)
        await self._anew()

    async def refresh(self) -> None:
        """Nothing: people read here; the list does not move under them."""

    async def on_batch(self, batch: Batch) -> None:
        """Nothing."""

    def leave(self) -> None:
        """Nothing runs."""

    async def _anew(self) -> None:
        await self._paging.first()
        self._empty.clear()
        nothing = not self._paging.rows
        self._table.element.visible = not nothing
        if nothing:
            with self._empty:
                empty_state("o_forum", "No requests", "Ask it something in the playground, or from a program of yours.")

    async def _read(self, after: str | None) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        query = {
            "model": self._view.detail.summary.id,
            "outcome": self._outcome.value or None,
            "limit": PAGE,
            "after": after,
        }
        answer = await self._view.api.requests(query)
        now = datetime.now(UTC)
        return [request_row(one, now) for one in rows(answer.get("items"))], answer.get("next")


def request_row(record: Row, now: datetime) -> dict[str, object]:
    """Fields of a table's row."""
    outcome, tone = _OUTCOMES.get(text(record.get("outcome")), (text(record.get("outcome")), Tone.NEUTRAL))
    prompt, completion = number(record.get("prompt_tokens")), number(record.get("completion_tokens"))
    return {
        "id": text(record.get("request_id")),
        "row_name": text(record.get("request_id")),
        "outcome": outcome,
        "outcome_tone": tone.value,
        "status": text(record.get("status")),
        "route": text(record.get("route")) + (" (stream)" if record.get("stream") else ""),
        "tokens": f"{count_text(prompt)}, {count_text(completion)}" + (" ≈" if record.get("estimated") else ""),
        "ttft": _ms(record.get("ttft_ms")),
        "duration": _ms(record.get("duration_ms")),
        "replica": text(record.get("replica_id")).rpartition("-")[2] or NOTHING,
    } | time_cells("at", record.get("started_at"), now)


def _ms(value: object) -> str:
    found = number(value)
    return NOTHING if found is None else duration_text(found / 1000)
