"""What an engine replica is made of, independent of the runtime that runs it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from cortex_contracts.base import ModelId, NodeId, ReplicaId, replica_id
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState, EngineType

HOST = "{cortex.host}"
PORT = "{cortex.port}"
"""Whole arguments that the runtime replaces when it knows where the engine listens; the hash does not depend on them."""

LABEL_MANAGED = "cortex.managed"
LABEL_NODE = "cortex.node"
LABEL_MODEL = "cortex.model"
LABEL_ORDINAL = "cortex.ordinal"
LABEL_ENGINE = "cortex.engine"
LABEL_SPEC_HASH = "cortex.spec-hash"
LABEL_RESTARTS = "cortex.restarts"
LABEL_STOP_TIMEOUT = "cortex.stop-timeout"


class SpecError(Exception):
    """A model that cannot be turned into a running engine; `code` is stable, the message says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The options that one build of an engine lists. Empty means that nobody asked it."""

    flags: frozenset[str] = frozenset()
    switches: frozenset[str] = frozenset()
    """Those of them that take no value."""


@dataclass(frozen=True, slots=True)
class Program:
    """Where an engine comes from: an image reference or the path of an executable."""

    reference: str
    capabilities: Capabilities = Capabilities()
    version: str | None = None


@dataclass(frozen=True, slots=True)
class StopPolicy:
    """SIGTERM at once, a second one after `second_term_s` if the engine needs it, SIGKILL at `deadline_s`."""

    deadline_s: float
    second_term_s: float | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A host folder or a named volume inside a container. A process needs none: it sees the host's files."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Command:
    """What an engine builder makes of a model.

    `entrypoint` replaces the image's own; as a process, its first word is the program and the rest are arguments.
    """

    argv: tuple[str, ...]
    api_key_env: str
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    entrypoint: tuple[str, ...] | None = None
    shm_bytes: int | None = None
    read_only_root: bool = True
    lock_memory: bool = False
    hub_cache: bool = False
    """Downloads models, and should keep them over a replacement."""
    warnings: tuple[str, ...] = ()
    """What was left out or degraded, in sentences; no part of the hash."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One replica, ready to be created. Equal hashes mean that a running engine need not be replaced."""

    model_id: ModelId
    ordinal: int
    engine_type: EngineType
    node: NodeId
    program: Program
    command: Command
    mounts: tuple[Mount, ...] = ()
    gpus: tuple[int, ...] = ()
    memory_bytes: int | None = None
    restart_generation: int = 0
    key_fingerprint: str = ""
    """Of the secret key that the engine's own key is derived from."""
    stop: StopPolicy = StopPolicy(30.0)
    stop_timeout_s: int = 30
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hash", spec_hash(self))

    @property
    def replica_id(self) -> ReplicaId:
        return replica_id(self.model_id, self.ordinal)

    @property
    def name(self) -> str:
        """Name of the container or process."""
        return f"{self.engine_type}-model-{self.model_id}-{self.ordinal}"

    def labels(self, restarts: int = 0) -> dict[str, str]:
        """What makes the replica ours and recognisable to the next orchestrator."""
        return {
            LABEL_MANAGED: "1",
            LABEL_NODE: self.node,
            LABEL_MODEL: self.model_id,
            LABEL_ORDINAL: str(self.ordinal),
            LABEL_ENGINE: self.engine_type.value,
            LABEL_SPEC_HASH: self.hash,
            LABEL_RESTARTS: str(restarts),
            LABEL_STOP_TIMEOUT: str(self.stop_timeout_s),
        }


def spec_hash(spec: ContainerSpec) -> str:
    """Stable over processes and versions of Python; secrets, labels and the stop policy have no part in it."""
    command = spec.command
    parts = {
        "engine": spec.engine_type.value,
        "program": spec.program.reference,
        "entrypoint": command.entrypoint,
        "argv": command.argv,
        "env": dict(command.env),
        "shm": command.shm_bytes,
        "read_only": command.read_only_root,
        "lock_memory": command.lock_memory,
        "mounts": [[mount.source, mount.target, mount.read_only] for mount in spec.mounts],
        "gpus": spec.gpus,
        "memory": spec.memory_bytes,
        "generation": spec.restart_generation,
        "key": spec.key_fingerprint,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class ReplicaKey:
    """A replica that some model wants."""

    model: ModelDocumentV1
    ordinal: int

    @property
    def id(self) -> ReplicaId:
        return replica_id(self.model.id, self.ordinal)


def wanted_replicas(models: Mapping[str, ModelDocumentV1]) -> dict[ReplicaId, ReplicaKey]:
    """Every replica that should run, by id. A model with external endpoints is run by somebody else."""
    keys = [
        ReplicaKey(model, ordinal)
        for model in models.values()
        if model.desired_state is DesiredState.RUNNING and not model.external
        for ordinal in range(model.replicas)
    ]
    return {key.id: key for key in keys}
