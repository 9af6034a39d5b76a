"""What every part of the registry shares."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from fastapi import APIRouter
from faststream.nats import NatsBroker

from cortex_contracts.documents import ModelDocumentV1, NodeDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.streams import MODELS, NODES, REPLICAS, VERDICTS
from cortex_kit.bus import Bus
from cortex_kit.clock import Clock, SystemClock
from cortex_kit.kv import KVView
from cortex_registry.adapters.nats import Provisioner
from cortex_registry.adapters.postgres import Database
from cortex_registry.entrypoints.guards import Authenticator
from cortex_registry.handlers.observation import Observation
from cortex_registry.settings import Settings

Task = Callable[[], Awaitable[None]]
Check = Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Views:
    """The buckets the registry follows."""

    models: KVView[ModelDocumentV1]
    replicas: KVView[ReplicaDocumentV1]
    verdicts: KVView[VerdictDocumentV1]
    nodes: KVView[NodeDocumentV1]


@dataclass(frozen=True, slots=True)
class Core:
    """Connections, views and the clock: made once, handed to every part."""

    settings: Settings
    bus: Bus
    database: Database
    views: Views
    provisioner: Provisioner
    observation: Observation
    broker: NatsBroker
    """Parts attach their consumers; the composition root runs it."""
    readiness: Mapping[str, Check]
    clock: Clock = field(default_factory=SystemClock)

    @property
    def source(self) -> str:
        """Name of this instance in events."""
        return f"cortex/registry/{self.settings.instance}"

    @property
    def models_root(self) -> str | None:
        """The models directory, if this registry knows it."""
        return str(self.settings.models_dir) if self.settings.models_dir is not None else None


@dataclass(frozen=True, slots=True)
class Part:
    """What one area adds to the service."""

    routers: tuple[APIRouter, ...] = ()
    tasks: Mapping[str, Task] = field(default_factory=dict[str, Task])
    fed: Mapping[str, Task] = field(default_factory=dict[str, Task])
    """Tasks that consumers hand messages to; they are stopped after the consumers."""
    authenticators: tuple[Authenticator, ...] = ()
    public: frozenset[tuple[str, str]] = frozenset()
    """(method, path) pairs that need no sign-in."""
    drain: tuple[Task, ...] = ()
    """Called first when the service stops: ends answers that would never end by themselves."""


def new_views(bus: Bus) -> Views:
    """Views that have read nothing yet; their `run` methods are tasks."""
    return Views(
        KVView(bus, MODELS, ModelDocumentV1),
        KVView(bus, REPLICAS, ReplicaDocumentV1),
        KVView(bus, VERDICTS, VerdictDocumentV1),
        KVView(bus, NODES, NodeDocumentV1),
    )
