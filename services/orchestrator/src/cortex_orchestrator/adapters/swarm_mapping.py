"""Our words to Swarm's and back. No calls.

A replica is a service of one task that is never restarted: created with no task, started by scaling it to one. What
Swarm cannot say of a service (a second SIGTERM, whether memory ran out) is asked of the task's container.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from cortex_kit.errors import DomainError
from cortex_orchestrator.adapters.docker_mapping import ENGINE_PORT, LABEL_GPUS, LOG_OPTIONS, EngineLimits
from cortex_orchestrator.domain.observed import Exit, Observed, Phase, parse_labels
from cortex_orchestrator.domain.spec import HOST, LABEL_MODEL, LABEL_ORDINAL, PORT, ContainerSpec

LABEL_STOPPED = "cortex.stopped"
LABEL_TASK_OF = "cortex.task-of"
"""On containers, in place of LABEL_MANAGED: the Docker runtime must not take them for its own."""
NANO = 1_000_000_000
WAITING = frozenset(("new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "allocated"))
REFUSED = frozenset(("rejected", "orphaned"))


@dataclass(frozen=True, slots=True)
class SwarmPlace:
    """Where engines run: the overlay network, and the one swarm node that this orchestrator places engines on.

    `publish` opens a port on ALL interfaces of that node (Swarm knows no other way): only for a host that is closed to
    others. `gpu_resource` also reserves that generic resource, one for each GPU.
    """

    network: str
    node: str
    swarm_node: str | None = None
    publish: bool = False
    limits: EngineLimits = field(default_factory=EngineLimits)
    gpu_resource: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceAsked:
    """Arguments of `create_service`."""

    name: str
    labels: dict[str, str]
    task_template: dict[str, Any]
    endpoint_spec: dict[str, Any]


def service(
    spec: ContainerSpec, environment: Mapping[str, str], restarts: int, place: SwarmPlace, node_id: str
) -> ServiceAsked:
    """The service of one replica, without a task yet."""
    labels = {**spec.labels(restarts), LABEL_GPUS: ",".join(str(gpu) for gpu in spec.gpus)}
    template: dict[str, Any] = {
        "ContainerSpec": _container(spec, {**environment, **_gpu_environment(spec)}, place),
        "Resources": _resources(spec, place),
        "RestartPolicy": {"Condition": "none"},
        "Placement": {"Constraints": [f"node.id=={node_id}"]},
        "Networks": [{"Target": place.network}],
        "LogDriver": {"Name": "json-file", "Options": dict(LOG_OPTIONS)},
    }
    # Names resolve to the task's own address: a virtual address would need IPVS, which not every kernel has.
    endpoint: dict[str, Any] = {"Mode": "dnsrr"}
    if place.publish:
        endpoint["Ports"] = [{"Protocol": "tcp", "TargetPort": ENGINE_PORT, "PublishMode": "host"}]
    return ServiceAsked(spec.name, labels, template, endpoint)


def _container(spec: ContainerSpec, environment: Mapping[str, str], place: SwarmPlace) -> dict[str, Any]:
    command = spec.command
    values = {HOST: "0.0.0.0", PORT: str(ENGINE_PORT)}
    container: dict[str, Any] = {
        "Image": spec.program.reference,
        "Args": [values.get(word, word) for word in command.argv],
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": {LABEL_TASK_OF: place.node, LABEL_MODEL: spec.model_id, LABEL_ORDINAL: str(spec.ordinal)},
        "Mounts": _mounts(spec, place),
        "ReadOnly": command.read_only_root,
        "Init": True,
        "CapabilityDrop": ["ALL"],
        # Heeded by engines of API 1.44 and later; older ones offer services no such option.
        "Privileges": {"NoNewPrivileges": True},
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGTERM",
        "StopGracePeriod": round(spec.stop.deadline_s * NANO),
    }
    if command.entrypoint is not None:
        container["Command"] = list(command.entrypoint)
    if command.lock_memory:
        container["Ulimits"] = [{"Name": "memlock", "Soft": -1, "Hard": -1}]
    return container


def _mounts(spec: ContainerSpec, place: SwarmPlace) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {
            "Type": "bind" if mount.source.startswith("/") else "volume",
            "Source": mount.source,
            "Target": mount.target,
            "ReadOnly": mount.read_only,
        }
        for mount in spec.mounts
    ]
    mounts.append({"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": place.limits.tmpfs_bytes}})
    if spec.command.shm_bytes is not None:  # services know no shm_size
        shm = {"Type": "tmpfs", "Target": "/dev/shm", "TmpfsOptions": {"SizeBytes": spec.command.shm_bytes}}
        mounts.append(shm)
    return mounts


def _resources(spec: ContainerSpec, place: SwarmPlace) -> dict[str, Any]:
    limits: dict[str, Any] = {"Pids": place.limits.pids}
    if place.limits.cpus is not None:
        limits["NanoCPUs"] = round(place.limits.cpus * NANO)
    if spec.memory_bytes is not None:
        limits["MemoryBytes"] = spec.memory_bytes
    resources: dict[str, Any] = {"Limits": limits}
    if place.gpu_resource is not None and spec.gpus:
        reserved = {"DiscreteResourceSpec": {"Kind": place.gpu_resource, "Value": len(spec.gpus)}}
        resources["Reservations"] = {"GenericResources": [reserved]}
    return resources


def _gpu_environment(spec: ContainerSpec) -> dict[str, str]:
    """Services take no device requests: the node's default runtime must be NVIDIA's, which reads these."""
    if not spec.gpus:
        return {"NVIDIA_VISIBLE_DEVICES": "void"}
    devices = ",".join(str(gpu) for gpu in spec.gpus)
    return {"NVIDIA_VISIBLE_DEVICES": devices, "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}


@dataclass(frozen=True, slots=True)
class Node:
    """The swarm node that engines run on."""

    id: str
    address: str


def newest(tasks: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The service's present task: there is at most one that was meant to run, and failed ones are kept for a while."""
    return max(tasks, key=lambda task: str(task["CreatedAt"]), default=None)


def observed(
    found: Mapping[str, Any],
    task: Mapping[str, Any] | None,
    container: Mapping[str, Any] | None,
    place: SwarmPlace,
    node: Node,
) -> Observed | None:
    """A service with its newest task, and the task's container where it can be asked; None when it is not ours."""
    labels = cast("dict[str, str]", found["Spec"].get("Labels") or {})
    identity = parse_labels(labels)
    if identity is None:
        return None
    state = "" if task is None else str(task["Status"]["State"])
    phase = _phase(state, LABEL_STOPPED in labels)
    name = str(found["Spec"]["Name"])
    return Observed(
        identity=identity,
        container=name,
        incarnation=str(found["ID"] if task is None else task["ID"]),
        phase=phase,
        endpoint=_endpoint(task, name, place, node) if phase is Phase.RUNNING and task is not None else None,
        gpus=tuple(int(index) for index in labels.get(LABEL_GPUS, "").split(",") if index),
        exit=ended(task, container) if phase is Phase.EXITED else None,
        started_at=_started(task, container),
        finished_at=_finished(task, container) if phase is Phase.EXITED else None,
        created_at=_moment(found.get("CreatedAt")),
    )


def _phase(state: str, stopped: bool) -> Phase:
    if state == "running" or (state in WAITING and not stopped):
        return Phase.RUNNING
    if state == "":
        return Phase.EXITED if stopped else Phase.CREATED
    return Phase.EXITED


def _endpoint(task: Mapping[str, Any], name: str, place: SwarmPlace, node: Node) -> str | None:
    if not place.publish:
        return f"http://{name}:{ENGINE_PORT}"
    status = cast("dict[str, Any]", task["Status"])
    ports = cast("list[dict[str, Any]]", (status.get("PortStatus") or {}).get("Ports") or [])
    return next((f"http://{node.address}:{port['PublishedPort']}" for port in ports if port.get("PublishedPort")), None)


def ended(task: Mapping[str, Any] | None, container: Mapping[str, Any] | None) -> Exit:
    """How the task ended; the container knows better, as long as it is there."""
    if container is not None:
        return Exit(int(container["State"]["ExitCode"]), bool(container["State"].get("OOMKilled", False)))
    if task is None:
        return Exit(None)
    status = cast("dict[str, Any]", task["Status"].get("ContainerStatus") or {})
    state = str(task["Status"]["State"])
    code = status.get("ExitCode")
    if code is None:
        code = 0 if state == "complete" else None
    return Exit(None if code is None else int(code))


def refusal(task: Mapping[str, Any]) -> DomainError | None:
    """Why Swarm will not run a task; None when nothing says so."""
    status = cast("dict[str, Any]", task["Status"])
    text = str(status.get("Err") or status.get("Message") or "")[:500]
    if "no suitable node" in text:
        hint = "No swarm node takes the engine: it is away, drained, or short of what is reserved."
        return DomainError("node_unsuitable", f"{hint} Swarm said: {text}", status=503)
    if str(status["State"]) not in REFUSED:
        return None
    if "no such image" in text.lower():
        return DomainError("image_missing", f"the node cannot get the image: {text}", status=503)
    return DomainError("engine_start_failed", f"the swarm node refused the engine: {text}", status=503)


def container_id(task: Mapping[str, Any] | None) -> str | None:
    """The task's container, once it has one."""
    if task is None:
        return None
    status = cast("dict[str, Any]", task["Status"].get("ContainerStatus") or {})
    return status.get("ContainerID") or None


def _started(task: Mapping[str, Any] | None, container: Mapping[str, Any] | None) -> datetime | None:
    if container is not None:
        return _moment(container["State"].get("StartedAt"))
    return None if task is None else _moment(task.get("CreatedAt"))


def _finished(task: Mapping[str, Any] | None, container: Mapping[str, Any] | None) -> datetime | None:
    if container is not None:
        return _moment(container["State"].get("FinishedAt"))
    return None if task is None else _moment(task["Status"].get("Timestamp"))


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str) or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(text)
