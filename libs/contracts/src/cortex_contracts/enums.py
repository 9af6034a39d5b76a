"""Closed vocabularies. A reader meeting an unknown value fails the message, so adding a value needs a new version."""

from enum import StrEnum


class EngineType(StrEnum):
    VLLM = "vllm"
    LLAMACPP = "llamacpp"


class Task(StrEnum):
    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"


class DesiredState(StrEnum):
    """What the administrator asked for."""

    RUNNING = "running"
    STOPPED = "stopped"


class Lifecycle(StrEnum):
    ALWAYS = "always"
    ON_DEMAND = "on_demand"
    MANUAL = "manual"


class RoutingPolicy(StrEnum):
    LEAST_LOADED = "least_loaded"
    PREFIX_AFFINITY = "prefix_affinity"
    ROUND_ROBIN = "round_robin"


class ReplicaState(StrEnum):
    """What the orchestrator observed of one engine container or process."""

    PULLING = "pulling"
    STARTING = "starting"
    STARTED = "started"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Verdict(StrEnum):
    """What the health service concluded from its probes."""

    LOADING = "loading"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class ModelState(StrEnum):
    """Observed state of a model, projected from desire, replicas and verdicts. Never stored."""

    STOPPED = "stopped"
    PULLING = "pulling"
    STARTING = "starting"
    LOADING = "loading"
    RUNNING = "running"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    FAILED = "failed"


class RuntimeKind(StrEnum):
    DOCKER = "docker"
    SWARM = "swarm"
    PROCESS = "process"


class UsageOutcome(StrEnum):
    """How a request ended. Only COMPLETED counts as a success."""

    COMPLETED = "completed"
    CLIENT_DISCONNECTED = "client_disconnected"
    UPSTREAM_ERROR = "upstream_error"
    REJECTED = "rejected"
