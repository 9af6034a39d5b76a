"""Our words to Docker's and back. No calls: what the engine is asked for, what its answers mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from docker.errors import APIError, ImageNotFound
from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from cortex_kit.errors import DomainError, TransientError
from cortex_orchestrator.domain.observed import Exit, Observed, Phase, parse_labels
from cortex_orchestrator.domain.spec import HOST, PORT, ContainerSpec

ENGINE_PORT = 8000
LOG_OPTIONS = {"max-size": "8m", "max-file": "2"}
LABEL_GPUS = "cortex.gpus"
NVIDIA_HINT = (
    "Docker cannot give the engine a GPU: install the NVIDIA Container Toolkit on this host, or set ngl to 0 and leave"
    " placement on auto."
)
DISK_FULL_HINT = "The disk of the Docker host is full: free space (docker system df, docker image prune)."
_SILENCES = (
    ("FileNotFoundError", "its socket is not there: it is stopped, or being stopped"),
    ("No such file or directory", "its socket is not there: it is stopped, or being stopped"),
    ("Connection refused", "nobody listens at its address: it is stopped"),
    ("ConnectionRefusedError", "nobody listens at its address: it is stopped"),
    ("Permission denied", "its socket may not be opened by this user: is it in the group `docker`?"),
    ("PermissionError", "its socket may not be opened by this user: is it in the group `docker`?"),
    ("timed out", "it does not answer in time"),
)
UNREACHABLE_PHRASES = (
    "dial tcp",
    "no such host",
    "connection refused",
    "i/o timeout",
    "timeout exceeded",
    "deadline exceeded",
    "tls handshake",
    "x509",
    "network is unreachable",
    "connection reset",
    "eof",
    "server gave http response",
)


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What no engine may exceed, and what every engine of this node may use; in force from its next creation on."""

    pids: int = 4096
    cpus: float | None = None
    tmpfs_bytes: int = 1024**3
    devices: tuple[str, ...] = ()
    """Host devices like /dev/dri, for engines that compute by Vulkan."""
    device_groups: tuple[str, ...] = ()
    """Ids of the groups that own those devices."""


@dataclass(frozen=True, slots=True)
class DockerPlace:
    """Where engines live: the private network, and whether their port is also published on 127.0.0.1.

    `internal` makes the network one without a way out.
    """

    network: str
    publish: bool
    node: str
    limits: EngineLimits = EngineLimits()
    internal: bool = False


def creation(
    spec: ContainerSpec, environment: Mapping[str, str], restarts: int, place: DockerPlace
) -> dict[str, object]:
    """Arguments of `containers.create`: the least that an engine needs to run."""
    command = spec.command
    values = {HOST: "0.0.0.0", PORT: str(ENGINE_PORT)}
    asked: dict[str, object] = {
        "image": spec.program.reference,
        "name": spec.name,
        "command": [values.get(word, word) for word in command.argv],
        "labels": {**spec.labels(restarts), LABEL_GPUS: ",".join(str(gpu) for gpu in spec.gpus)},
        "environment": dict(environment),
        "mounts": [
            Mount(mount.target, mount.source, type=_mount_type(mount.source), read_only=mount.read_only)
            for mount in spec.mounts
        ],
        "network": place.network,
        "healthcheck": {"test": ["NONE"]},
        "restart_policy": {"Name": "no"},
        "log_config": LogConfig(type=LogConfig.types.JSON, config=dict(LOG_OPTIONS)),
    }
    asked |= _hardening(spec, place.limits)
    if command.entrypoint is not None:
        asked["entrypoint"] = list(command.entrypoint)
    if command.shm_bytes is not None:
        asked["shm_size"] = command.shm_bytes
    if spec.memory_bytes is not None:
        asked |= {"mem_limit": spec.memory_bytes, "memswap_limit": spec.memory_bytes}
    if command.lock_memory:
        asked["ulimits"] = [Ulimit(name="memlock", soft=-1, hard=-1)]
    if spec.gpus:
        devices = [str(index) for index in spec.gpus]
        asked["device_requests"] = [DeviceRequest(device_ids=devices, capabilities=[["gpu"]])]
    if place.publish:
        asked["ports"] = {f"{ENGINE_PORT}/tcp": ("127.0.0.1", None)}
    return asked


def _hardening(spec: ContainerSpec, limits: EngineLimits) -> dict[str, object]:
    hardening: dict[str, object] = {
        "init": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": limits.pids,
        "read_only": spec.command.read_only_root,
        "tmpfs": {"/tmp": f"rw,nosuid,nodev,size={limits.tmpfs_bytes}"},
    }
    if limits.cpus is not None:
        hardening["nano_cpus"] = round(limits.cpus * 1e9)
    if limits.devices:
        hardening["devices"] = [f"{device}:{device}:rwm" for device in limits.devices]
        hardening["group_add"] = list(limits.device_groups)
    return hardening


def _mount_type(source: str) -> Literal["bind", "volume"]:
    return "bind" if source.startswith("/") else "volume"


def observed(attributes: Mapping[str, Any], place: DockerPlace) -> Observed | None:
    """One answer of `inspect`; None when the labels are not ours."""
    labels = cast("dict[str, str]", attributes["Config"].get("Labels") or {})
    identity = parse_labels(labels)
    if identity is None:
        return None
    state = cast("dict[str, Any]", attributes["State"])
    phase = _phase(str(state["Status"]))
    name = str(attributes["Name"]).lstrip("/")
    return Observed(
        identity=identity,
        container=name,
        incarnation=str(attributes["Id"]),
        phase=phase,
        endpoint=_endpoint(attributes, name, place) if phase is Phase.RUNNING else None,
        gpus=tuple(int(index) for index in labels.get(LABEL_GPUS, "").split(",") if index),
        exit=ended(state) if phase is Phase.EXITED else None,
        created_at=_moment(attributes.get("Created")),
        started_at=_moment(state.get("StartedAt")),
        finished_at=_moment(state.get("FinishedAt")) if phase is Phase.EXITED else None,
        detached=_detached(attributes) if phase is Phase.RUNNING else None,
    )


def ended(state: Mapping[str, Any]) -> Exit:
    """How a stopped container ended."""
    return Exit(int(state["ExitCode"]), bool(state.get("OOMKilled", False)))


def _phase(status: str) -> Phase:
    match status:
        case "created":
            return Phase.CREATED
        case "exited" | "dead" | "removing":
            return Phase.EXITED
        case _:
            return Phase.RUNNING


def _endpoint(attributes: Mapping[str, Any], name: str, place: DockerPlace) -> str | None:
    if not place.publish:
        return f"http://{name}:{ENGINE_PORT}"
    ports = cast("dict[str, list[dict[str, str]] | None]", attributes["NetworkSettings"].get("Ports") or {})
    bindings = ports.get(f"{ENGINE_PORT}/tcp")
    return f"http://127.0.0.1:{bindings[0]['HostPort']}" if bindings else None


def _detached(attributes: Mapping[str, Any]) -> str | None:
    """A network can only be removed after its containers were taken off it; a new one of that name has none of them."""
    asked = cast("dict[str, Any]", attributes.get("HostConfig") or {})
    network = asked.get("NetworkMode")
    if network is None or network in (attributes["NetworkSettings"].get("Networks") or {}):
        return None
    return f"somebody took it off its network {network}, so nobody reaches it; it is made again"


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str) or text.startswith("0001-"):
        return None
    return datetime.fromisoformat(text)


def translate(error: Exception, doing: str) -> DomainError | TransientError:
    """A vendor error in our words. Status codes and the engine's own phrases decide."""
    if isinstance(error, ImageNotFound):
        return DomainError("image_missing", f"{doing}: the image is not there: {_explanation(error)}", status=503)
    if not isinstance(error, APIError):
        return TransientError(f"{doing}: the Docker engine cannot be reached: {_silence(error)}")
    text = _explanation(error)
    lowered = text.lower()
    if "no space left on device" in lowered:
        return DomainError("disk_full", f"{doing}: {DISK_FULL_HINT} Docker said: {text}", status=503)
    if any(phrase in lowered for phrase in ("could not select device driver", "nvidia", "unknown runtime")):
        return DomainError("gpu_runtime_missing", f"{NVIDIA_HINT} Docker said: {text}", status=503)
    # On a host that is a swarm, too, Docker looks for a network that was removed among the swarm's.
    if "could not attach to network" in lowered:
        return TransientError(f"{doing}: {text}")
    if "port is already allocated" in lowered or "address already in use" in lowered:
        return TransientError(f"{doing}: {text}")
    if error.status_code is not None and error.status_code >= 500:
        return DomainError("engine_start_failed", f"{doing}: {text}", status=503)
    return DomainError("docker_refused", f"{doing}: {text}", status=503)


def _silence(error: Exception) -> str:
    """Why nobody answered, without the wrappings of four libraries."""
    text = str(error)
    for phrase, meaning in _SILENCES:
        if phrase in text:
            return meaning
    return text[:300]


def repository_of(reference: str) -> str:
    """The reference without tag and digest; a colon before the last slash belongs to a port."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def pull_refused(reference: str, text: str) -> DomainError:
    """Why an image could not be pulled, in our words; Docker gives no codes for it, only sentences."""
    short = text[:500]
    lowered = text.lower()

    def refused(code: str, hint: str) -> DomainError:
        return DomainError(code, f"{reference} cannot be pulled. {hint} Docker said: {short}", status=503)

    if "no space left on device" in lowered:
        return refused("disk_full", DISK_FULL_HINT)
    if "toomanyrequests" in lowered or "rate limit" in lowered:
        return refused("registry_limit", "The registry's limit is used up: wait, or log in (docker login).")
    if "no matching manifest" in lowered:
        return refused("image_wrong_platform", "It does not exist for this machine's architecture.")
    if any(phrase in lowered for phrase in ("manifest unknown", "not found", "does not exist", "name unknown")):
        return refused("image_not_found", "Check its name and tag; a private one needs docker login on this host.")
    if any(phrase in lowered for phrase in ("unauthorized", "denied", "authentication required", "forbidden")):
        return refused("registry_denied", "Log in on the Docker host (docker login).")
    if any(phrase in lowered for phrase in UNREACHABLE_PHRASES):
        hint = "Its registry cannot be reached: check network, DNS and proxy of the Docker host, or load it by hand."
        return refused("registry_unreachable", hint)
    return refused("image_pull_failed", "Try docker pull by hand.")


def _explanation(error: APIError) -> str:
    return str(error.explanation or error)[:500]
