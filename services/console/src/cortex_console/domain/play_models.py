"""Models as the playground offers them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from cortex_console.domain.shapes import Row, row, rows, text, whole
from cortex_console.domain.states import engine_name

ANSWERING = frozenset({"running", "degraded"})


@dataclass(frozen=True, slots=True)
class PlayModel:
    """What the playground needs to know of one."""

    served_name: str
    name: str
    engine: str
    task: str
    state: str
    context: int | None
    """Tokens that one conversation may take."""

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one item of `GET /admin/models`."""
        return cls(
            served_name=text(answer.get("served_model_name")),
            name=text(answer.get("name")),
            engine=text(answer.get("engine_type")),
            task=text(answer.get("task")),
            state="archived" if answer.get("archived_at") else text(answer.get("state"), "unknown"),
            context=_context(answer),
        )

    @property
    def answers(self) -> bool:
        """Whether a question now gets an answer."""
        return self.state in ANSWERING


def choices(models: Iterable[PlayModel], task: str, chosen: str = "") -> dict[str, str]:
    """Served names and labels of those that answer, and the chosen one whatever its state."""
    offered = {
        model.served_name: f"{model.served_name} · {engine_name(model.engine)}"
        for model in models
        if model.task == task and model.answers
    }
    if chosen and chosen not in offered:
        state = next((model.state for model in models if model.served_name == chosen), "gone")
        offered[chosen] = f"{chosen} ({state})"
    return offered


def context_of(models: Iterable[PlayModel], served_name: str) -> int | None:
    """Of the model of this name."""
    return next((model.context for model in models if model.served_name == served_name), None)


def _context(answer: Mapping[str, object]) -> int | None:
    loads = (whole(row(replica.get("load")).get("context_per_slot")) for replica in rows(answer.get("replica_status")))
    told = max(loads, default=0)
    asked = whole(answer.get("max_model_len"))
    size, slots = whole(answer.get("context_size")), max(1, whole(answer.get("parallel_slots")))
    return told or asked or size // slots or None
