"""One model with its replicas, as its page shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from cortex_console.domain.formatting import NOTHING, bytes_text, count_text, duration_text, moment
from cortex_console.domain.models import COMING, ModelSummary
from cortex_console.domain.shapes import Row, number, row, rows, text, texts, whole
from cortex_console.domain.states import replica_tone, task_name, verdict_tone


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What went wrong with an engine, in the orchestrator's words."""

    code: str
    message: str
    fix: str

    @classmethod
    def of(cls, answer: object) -> Self | None:
        """None where there is none."""
        found = row(answer)
        if not found:
            return None
        return cls(text(found.get("code")), text(found.get("message")), text(found.get("fix")))


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine said of itself at its last probe; None for what it does not tell."""

    running: float | None = None
    waiting: float | None = None
    slots: float | None = None
    context_per_slot: float | None = None
    kv_usage: float | None = None

    @classmethod
    def of(cls, answer: object) -> Self:
        """Of a replica or an upstream."""
        load = row(answer)
        names = ("running", "waiting", "slots_total", "context_per_slot", "kv_usage")
        return cls(*(number(load.get(name)) for name in names))

    @property
    def words(self) -> str:
        """`1 of 4 busy, 2 waiting`."""
        if self.running is None:
            return NOTHING
        busy = f"{self.running:.0f} of {self.slots:.0f} busy" if self.slots is not None else f"{self.running:.0f} busy"
        return f"{busy}, {self.waiting:.0f} waiting" if self.waiting else busy


@dataclass(frozen=True, slots=True)
class Replica:
    """One observed engine."""

    id: str
    ordinal: int
    node: str
    state: str
    reason: str
    since: str
    verdict: str
    verdict_reason: str
    endpoint: str
    container: str
    exit_code: int | None
    restarts: int
    next_attempt_at: str
    pulled: float | None
    pull_total: float | None
    gpus: tuple[int, ...]
    diagnosis: Diagnosis | None
    warnings: tuple[str, ...]
    load_seconds: float | None
    load: EngineLoad

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one item of `replica_status`."""
        pull, code = row(answer.get("pull")), answer.get("exit_code")
        return cls(
            id=text(answer.get("id")),
            ordinal=whole(answer.get("ordinal")),
            node=text(answer.get("node")),
            state=text(answer.get("state")),
            reason=text(answer.get("reason")),
            since=text(answer.get("since")),
            verdict=text(answer.get("verdict")),
            verdict_reason=text(answer.get("verdict_reason")),
            endpoint=text(answer.get("endpoint")),
            container=text(answer.get("container")),
            exit_code=code if isinstance(code, int) else None,
            restarts=whole(answer.get("restarts")),
            next_attempt_at=text(answer.get("next_attempt_at")),
            pulled=number(pull.get("current_bytes")),
            pull_total=number(pull.get("total_bytes")),
            gpus=tuple(whole(index) for index in answer.get("gpus") or ()),
            diagnosis=Diagnosis.of(answer.get("diagnosis")),
            warnings=tuple(texts(answer.get("warnings"))),
            load_seconds=number(answer.get("load_seconds")),
            load=EngineLoad.of(answer.get("load")),
        )

    @property
    def devices(self) -> str:
        """Where it computes."""
        return ", ".join(f"GPU {index}" for index in self.gpus) or "CPU"


@dataclass(frozen=True, slots=True)
class ModelDetail:
    """A model as `GET /admin/models/{ref}` tells it; `answer` has every option."""

    summary: ModelSummary
    since: str
    replicas: tuple[Replica, ...]
    answer: Row

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read the answer."""
        replicas = tuple(Replica.of(one) for one in rows(answer.get("replica_status")))
        return cls(ModelSummary.of(answer), text(answer.get("since")), replicas, answer)

    @property
    def troubled(self) -> Replica | None:
        """The replica whose diagnosis is told; None while all is well."""
        return next((one for one in self.replicas if one.diagnosis is not None and one.state == "failed"), None)

    def trouble(self, before: Replica | None) -> Replica | None:
        """The replica to tell of: the one that failed, also while it is tried again; None once something else happened."""
        if self.troubled is not None or before is None:
            return self.troubled
        again = self.summary.state in COMING or self.summary.state == "failed"
        return before if again and self.summary.wants_to_run else None

    def load(self) -> EngineLoad:
        """Of all replicas together; the fullest KV cache."""
        loads = [replica.load for replica in self.replicas]
        return EngineLoad(
            running=_sum([load.running for load in loads]),
            waiting=_sum([load.waiting for load in loads]),
            slots=_sum([load.slots for load in loads]),
            context_per_slot=max((load.context_per_slot or 0 for load in loads), default=0) or None,
            kv_usage=max((load.kv_usage for load in loads if load.kv_usage is not None), default=None),
        )

    def settings(self) -> dict[str, str]:
        """What matters of its options, for a glance."""
        answer = self.answer
        source = text(answer.get("local_path")) or text(answer.get("repo_id"))
        context = number(answer.get("context_size")) or number(answer.get("max_model_len"))
        shown = {
            "Served as": ", ".join([self.summary.served_name, *texts(answer.get("aliases"))]),
            "Task": task_name(self.summary.task),
            "Model": source or ("run by others" if self.summary.external else NOTHING),
            "Context": f"{count_text(context)} tokens" if context else "the model's own",
            "Replicas": NOTHING if self.summary.external else str(self.summary.replicas),
            "Lifecycle": text(answer.get("lifecycle")).replace("_", " "),
            "Placement": _placement(answer.get("placement")),
            "Version": str(self.summary.version),
        }
        idle = number(answer.get("idle_ttl_s"))
        return shown | ({"Sleeps after": duration_text(idle)} if idle else {})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a start is. `share` is None while nobody can know."""

    words: str
    share: float | None


def progress(replica: Replica, now: datetime) -> Progress | None:
    """Of a replica on its way; None of one that is there, or that is not coming."""
    if replica.state == "pulling":
        if replica.pull_total:
            share = min(1.0, (replica.pulled or 0) / replica.pull_total)
            return Progress(
                f"Pulling the image: {bytes_text(replica.pulled)} of {bytes_text(replica.pull_total)}", share
            )
        return Progress("Pulling the image", None)
    if replica.state not in ("starting", "started") or replica.verdict not in ("", "loading"):
        return None
    begun = moment(replica.since)
    passed = max(0.0, (now - begun).total_seconds()) if begun is not None else 0.0
    words = f"Loading for {duration_text(round(passed))}"
    if not replica.load_seconds:
        return Progress(words, None)
    usual = f"{words}; it took {duration_text(replica.load_seconds)} the last time"
    return Progress(usual, min(0.97, passed / replica.load_seconds))


def is_coming(state: str) -> bool:
    """Whether a model is on its way."""
    return state in COMING


def replica_row(replica: Replica) -> dict[str, object]:
    """Fields of a table's row."""
    note = replica.verdict_reason if replica.verdict else "not probed"
    state_note = "" if replica.reason == replica.state else replica.reason
    return {
        "id": replica.id,
        "row_name": f"replica {replica.ordinal}",
        "ordinal": f"#{replica.ordinal}",
        "state": replica.state,
        "state_tone": replica_tone(replica.state).value,
        "state_note": state_note if len(state_note) <= 120 else f"{state_note[:119]}…",
        "verdict": replica.verdict or "unknown",
        "verdict_tone": verdict_tone(replica.verdict).value,
        "verdict_note": note,
        "where": f"{replica.node}, {replica.devices}",
        "endpoint": replica.endpoint.removeprefix("http://") or NOTHING,
        "load": replica.load.words,
        "kv": percent_text(replica.load.kv_usage),
        "restarts": str(replica.restarts),
    }


def percent_text(share: float | None) -> str:
    """0.42 -> `42 %`."""
    return NOTHING if share is None else f"{share * 100:.0f} %"


def _placement(value: object) -> str:
    return ", ".join(f"GPU {index}" for index in texts(value)) or text(value, NOTHING)


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
