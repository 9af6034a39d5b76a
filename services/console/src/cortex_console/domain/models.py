"""Models as the console shows them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from cortex_console.domain.formatting import NOTHING, rate_text
from cortex_console.domain.shapes import Row, number, row, rows, text, whole
from cortex_console.domain.states import engine_name, model_tone, task_name

RUNS = frozenset({"running", "degraded"})
COMING = frozenset({"pulling", "starting", "loading"})


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """What a list needs to know of one model."""

    id: str
    name: str
    served_name: str
    engine: str
    task: str
    state: str
    reason: str
    wants_to_run: bool
    archived: bool
    external: bool
    replicas: int
    healthy: int
    gpus: tuple[str, ...]
    version: int

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one item of `GET /admin/models`."""
        replicas = rows(answer.get("replica_status"))
        archived = answer.get("archived_at") is not None
        return cls(
            id=text(answer.get("id")),
            name=text(answer.get("name")),
            served_name=text(answer.get("served_model_name")),
            engine=text(answer.get("engine_type")),
            task=text(answer.get("task")),
            state="archived" if archived else text(answer.get("state"), "unknown"),
            reason=text(answer.get("reason")),
            wants_to_run=answer.get("desired_state") == "running",
            archived=archived,
            external=bool(answer.get("external")),
            replicas=whole(answer.get("replicas")),
            healthy=sum(1 for replica in replicas if replica.get("verdict") == "healthy"),
            gpus=_gpus(replicas),
            version=whole(answer.get("version")),
        )

    def matches(self, wanted: "ModelFilter") -> bool:
        """Whether a list with this filter shows it."""
        words = f"{self.name} {self.served_name} {self.reason}".lower()
        return (
            all(word in words for word in wanted.search.lower().split())
            and wanted.engine in ("", self.engine)
            and wanted.task in ("", self.task)
            and wanted.state in ("", self.state)
        )


@dataclass(frozen=True, slots=True)
class ModelFilter:
    """Empty texts ask for nothing."""

    search: str = ""
    engine: str = ""
    task: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """What a model did in the last minutes."""

    requests_per_second: float | None
    tokens_per_second: float | None


def loads(throughput: Row) -> dict[str, Load]:
    """By served name, from `GET /admin/system/throughput`."""
    models = row(throughput.get("models"))
    return {
        name: Load(number(row(one).get("requests_per_second")), number(row(one).get("tokens_per_second")))
        for name, one in models.items()
    }


def table_row(model: ModelSummary, load: Load | None) -> dict[str, object]:
    """Fields of a table's row; the acts are added by the page."""
    requests = load.requests_per_second if load else None
    tokens = load.tokens_per_second if load else None
    return {
        "id": model.id,
        "row_name": model.name,
        "name": model.name,
        "name_href": f"/models/{model.id}",
        "name_note": model.served_name,
        "engine": engine_name(model.engine),
        "engine_kind": model.engine,
        "task": task_name(model.task),
        "state": model.state,
        "state_tone": model_tone(model.state).value,
        "state_note": "" if model.reason == model.state else model.reason,
        "replicas": NOTHING if model.external else f"{model.healthy}/{model.replicas}",
        "replicas_sort": model.healthy,
        "gpus": ", ".join(model.gpus) or ("external" if model.external else NOTHING),
        "requests": rate_text(requests),
        "requests_sort": requests or 0,
        "tokens": rate_text(tokens),
        "tokens_sort": tokens or 0,
    }


def count_by_state(models: Iterable[ModelSummary]) -> Mapping[str, int]:
    """How many are in each state."""
    counts: dict[str, int] = {}
    for model in models:
        counts[model.state] = counts.get(model.state, 0) + 1
    return counts


def _gpus(replicas: Sequence[Row]) -> tuple[str, ...]:
    nodes = {text(replica.get("node")) for replica in replicas}
    found: set[str] = set()
    for replica in replicas:
        if replica.get("state") in ("stopped", "failed"):
            continue
        for index in replica.get("gpus") or ():
            found.add(f"{text(replica.get('node'))}:{index}" if len(nodes) > 1 else f"GPU {index}")
    return tuple(sorted(found))
