"""The routing table: a pure projection of the buckets models, replicas and verdicts, swapped whole."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from cortex_contracts.base import ReplicaId
from cortex_contracts.documents import EngineLoad, ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import DesiredState, EngineType, Lifecycle, ReplicaState, Task, Verdict
from cortex_contracts.external import endpoint_of, external_replicas
from cortex_gateway.domain.capabilities import Capabilities, capabilities_of

EngineKey = Callable[[str, str], str]
"""(replica id, spec hash) -> the engine's own API key."""
Unseal = Callable[[str], str | None]
"""Opens the sealed key of an endpoint that others run; None when it cannot."""


@dataclass(frozen=True, slots=True)
class Keys:
    """How the gateway comes by the keys of engines."""

    derive: EngineKey
    unseal: Unseal


PATIENCE_S = 3.0
"""The orchestrator tries again after 1, 2, 4 … seconds: beyond this it has failed three times."""
MAX_REASON = 1000
NOTHING_SAID = EngineLoad()
_UNSAFE = re.compile("[^ -~]")
_PROTECTED_DEFAULTS = frozenset({"model", "messages", "prompt", "input", "stream", "stream_options"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to reach one engine. `head` holds the header lines that every request to it shares."""

    host: str
    port: int
    base_path: str
    head: bytes
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A healthy replica. `incarnation` changes when the replica is replaced, moves, or becomes healthy again."""

    replica_id: ReplicaId
    engine_type: EngineType
    endpoint: Endpoint
    incarnation: str
    served_name: str | None = None
    """The name the model has there; None: its own."""
    slots: int = 0
    """Requests that it works on at the same time; 0 when nobody knows."""
    load: EngineLoad = NOTHING_SAID
    """What the engine last said of itself: everybody's requests, ours among them."""


@dataclass(frozen=True, slots=True)
class Unavailability:
    """Why a model has no healthy replica. `wait` says whether that may change by itself soon."""

    state: str
    reason: str
    wait: bool
    retry_after_s: int
    final: bool = False
    """A failure that nobody will try to undo soon: no use waiting, though the model should run."""
    asleep: bool = False
    """It runs on demand and nobody has asked for it lately."""


@dataclass(frozen=True, slots=True)
class Route:
    """One model and its healthy replicas."""

    model: ModelDocumentV1
    names: frozenset[str]
    targets: tuple[Target, ...]
    unavailability: Unavailability
    defaults: Mapping[str, msgspec.Raw]
    """Encoded `request_defaults`, ready to be spliced into a request."""
    capabilities: Capabilities
    adapters: frozenset[str] = frozenset()
    """Names of LoRA adapters, which the engine must be asked for by their own names."""
    label: bytes = b""
    """The model's name as a header's value."""

    @property
    def engine_type(self) -> EngineType:
        return self.model.engine_type

    @property
    def task(self) -> Task:
        return self.model.task


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Models by every name they are served under. Immutable."""

    by_name: Mapping[str, Route] = field(default_factory=dict[str, Route])
    routes: tuple[Route, ...] = ()

    def find(self, name: str) -> Route | None:
        return self.by_name.get(name)


def build_table(
    models: Mapping[str, ModelDocumentV1],
    replicas: Mapping[str, ReplicaDocumentV1],
    verdicts: Mapping[str, VerdictDocumentV1],
    keys: Keys,
) -> RoutingTable:
    """Project the three buckets. A served name wins over another model's alias; among equals the older model wins."""
    replicas_of: dict[str, list[ReplicaDocumentV1]] = {}
    for replica in sorted(replicas.values(), key=lambda document: (document.model_id, document.ordinal)):
        replicas_of.setdefault(replica.model_id, []).append(replica)
    by_name: dict[str, Route] = {}
    routes: list[Route] = []
    for model in sorted(models.values(), key=lambda document: document.id):
        own = list(external_replicas(model)) if model.external else replicas_of.get(model.id, [])
        route = _build_route(model, own, verdicts, keys)
        routes.append(route)
        by_name.setdefault(model.served_model_name, route)
    for route in routes:
        for alias in route.model.aliases:
            by_name.setdefault(alias, route)
    for route in routes:
        for adapter in route.adapters:
            by_name.setdefault(adapter, route)
    return RoutingTable(by_name, tuple(routes))


def _build_route(
    model: ModelDocumentV1,
    replicas: list[ReplicaDocumentV1],
    verdicts: Mapping[str, VerdictDocumentV1],
    keys: Keys,
) -> Route:
    targets: list[Target] = []
    for replica in replicas:
        target = _target_of(model, replica, verdicts.get(replica.id), keys)
        if target is not None:
            targets.append(target)
    adapters = (
        frozenset(module.name for module in model.vllm.lora_modules) if model.vllm is not None else frozenset[str]()
    )
    return Route(
        model=model,
        names=adapters | {model.served_model_name, *model.aliases},
        adapters=adapters,
        targets=tuple(targets),
        capabilities=capabilities_of(model),
        unavailability=explain(model, replicas, verdicts),
        label=_UNSAFE.sub("?", model.served_model_name).encode("ascii"),
        defaults={
            name: msgspec.Raw(msgspec.json.encode(value))
            for name, value in model.request_defaults.items()
            if name not in _PROTECTED_DEFAULTS
        },
    )


def _target_of(
    model: ModelDocumentV1, replica: ReplicaDocumentV1, verdict: VerdictDocumentV1 | None, keys: Keys
) -> Target | None:
    if replica.state is not ReplicaState.STARTED or replica.endpoint is None or not _is_healthy(replica, verdict):
        return None
    external = endpoint_of(model, replica.id)
    if external is None:
        api_key: str | None = keys.derive(replica.id, replica.spec_hash)
    else:
        api_key = keys.unseal(external.api_key_sealed) if external.api_key_sealed is not None else None
    endpoint = parse_endpoint(replica.endpoint, api_key)
    if endpoint is None or verdict is None:
        return None
    incarnation = f"{replica.id}/{replica.spec_hash}/{replica.endpoint}/{replica.restarts}/{verdict.since.isoformat()}"
    served_name = external.served_name if external is not None else None
    slots = verdict.load.slots_total or _configured_slots(model)
    return Target(replica.id, replica.engine_type, endpoint, incarnation, served_name, slots, verdict.load)


def _configured_slots(model: ModelDocumentV1) -> int:
    """What the model's options say, for an engine that does not tell."""
    if model.llamacpp is not None and model.llamacpp.parallel_slots is not None:
        return model.llamacpp.parallel_slots
    if model.vllm is not None and model.vllm.max_num_seqs is not None:
        return model.vllm.max_num_seqs * (model.vllm.data_parallel_size or 1)
    return 0


def _is_healthy(replica: ReplicaDocumentV1, verdict: VerdictDocumentV1 | None) -> bool:
    return verdict is not None and verdict.spec_hash == replica.spec_hash and verdict.verdict is Verdict.HEALTHY


def parse_endpoint(url: str, api_key: str | None) -> Endpoint | None:
    """A base URL and the engine's key as connection data; None when the URL is not usable."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    try:
        port = parts.port or (443 if tls else 80)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        return None  # it would end the header line
    head = f"host: {parts.netloc}\r\n"
    if api_key is not None:
        head += f"authorization: Bearer {api_key}\r\n"
    return Endpoint(parts.hostname, port, parts.path.rstrip("/"), head.encode(), tls)


def explain(
    model: ModelDocumentV1, replicas: list[ReplicaDocumentV1], verdicts: Mapping[str, VerdictDocumentV1]
) -> Unavailability:
    """The most useful reason why no replica can serve now, as if none were healthy."""
    if model.desired_state is DesiredState.STOPPED:
        return Unavailability("stopped", "an administrator has stopped it", wait=False, retry_after_s=30)
    if not replicas:
        asleep = model.lifecycle is Lifecycle.ON_DEMAND
        reason = "it is asleep; this request wakes it" if asleep else "no replica exists yet"
        return Unavailability("starting", reason, wait=True, retry_after_s=10 if asleep else 5, asleep=asleep)
    for replica in replicas:
        verdict = verdicts.get(replica.id)
        if replica.state is ReplicaState.STARTED and not _is_healthy(replica, verdict):
            if verdict is not None and verdict.spec_hash == replica.spec_hash and verdict.verdict is Verdict.UNHEALTHY:
                return Unavailability("unhealthy", verdict.reason, wait=True, retry_after_s=2)
            return Unavailability("loading", "", wait=True, retry_after_s=5)
    for state, label, retry_after_s in (
        (ReplicaState.STARTED, "unreachable", 2),
        (ReplicaState.STARTING, "starting", 5),
        (ReplicaState.PULLING, "pulling", 30),
        (ReplicaState.FAILED, "failed", 10),
    ):
        for replica in replicas:
            if replica.state is state:
                final = state is ReplicaState.FAILED and _is_final(replica)
                return Unavailability(label, _reason_of(replica), wait=True, retry_after_s=retry_after_s, final=final)
    return Unavailability("stopping", "", wait=True, retry_after_s=5)


def _is_final(replica: ReplicaDocumentV1) -> bool:
    """Nobody tries again, or not before long: it has failed several times in a row by then."""
    later = replica.next_attempt_at
    return later is None or (later - replica.since).total_seconds() >= PATIENCE_S


def _reason_of(replica: ReplicaDocumentV1) -> str:
    """What happened, and what to do about it when the orchestrator knows."""
    fix = replica.diagnosis.fix if replica.diagnosis is not None else None
    return " ".join(part for part in (replica.reason, fix) if part)[:MAX_REASON]
