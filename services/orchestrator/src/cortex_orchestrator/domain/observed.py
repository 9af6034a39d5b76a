"""What a runtime reports of one replica of ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cortex_contracts.base import ModelId, ReplicaId, replica_id
from cortex_contracts.enums import EngineType
from cortex_orchestrator.domain.spec import (
    LABEL_ENGINE,
    LABEL_MODEL,
    LABEL_ORDINAL,
    LABEL_RESTARTS,
    LABEL_SPEC_HASH,
    LABEL_STOP_TIMEOUT,
)


class Phase(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Identity:
    """What the labels of a container say."""

    model_id: ModelId
    ordinal: int
    engine_type: EngineType
    spec_hash: str
    restarts: int = 0
    stop_timeout_s: int = 30

    @property
    def replica_id(self) -> ReplicaId:
        return replica_id(self.model_id, self.ordinal)


@dataclass(frozen=True, slots=True)
class Exit:
    """How an engine ended. The code follows the shell: 128 + signal. None: it was lost with its machine."""

    code: int | None
    oom_killed: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """One replica as it is now. `incarnation` differs between two runs of the same replica."""

    identity: Identity
    container: str
    incarnation: str
    phase: Phase
    endpoint: str | None = None
    gpus: tuple[int, ...] = ()
    exit: Exit | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    created_at: datetime | None = None
    detached: str | None = None
    """Why nobody can reach it although it runs, for ever."""

    @property
    def replica_id(self) -> ReplicaId:
        return self.identity.replica_id

    @property
    def ran_for_s(self) -> float:
        """Seconds from start to end; 0 when either is unknown."""
        if self.started_at is None or self.finished_at is None:
            return 0.0
        return max(0.0, (self.finished_at - self.started_at).total_seconds())


def parse_labels(labels: Mapping[str, str]) -> Identity | None:
    """The identity, or None when the labels are not ours or not whole."""
    try:
        return Identity(
            model_id=ModelId(labels[LABEL_MODEL]),
            ordinal=int(labels[LABEL_ORDINAL]),
            engine_type=EngineType(labels[LABEL_ENGINE]),
            spec_hash=labels[LABEL_SPEC_HASH],
            restarts=int(labels.get(LABEL_RESTARTS, "0")),
            stop_timeout_s=int(labels.get(LABEL_STOP_TIMEOUT, "30")),
        )
    except (KeyError, ValueError):
        return None
