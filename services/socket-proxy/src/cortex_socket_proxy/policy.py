"""What may pass to the Docker engine. Pure; everything that is not named here is refused.

Whoever may create a container with a bind mount owns the host, so the body of a create is checked field by field against
a list of what an engine needs. Docker's JSON decoder ignores the case of keys and takes the last of two: unknown
spellings are refused, and what is forwarded is written anew from what was checked.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

LABELS = ("cortex.managed", "cortex.probe")
"""Labels of ours; a container without one is not there for the orchestrator."""

_VERSION = r"(?:/v1\.\d{1,3})?"
_ID = r"(?P<container>[A-Za-z0-9][A-Za-z0-9_.-]{0,254})"
_IMAGE = r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}"
_NETWORK = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"


@dataclass(frozen=True, slots=True)
class Policy:
    """What this installation allows."""

    images: tuple[str, ...]
    """Patterns of image references, like `vllm/vllm-openai:*`."""
    binds: tuple[str, ...]
    """Host folders that may be mounted read-only, as they are given; nothing below or above them."""
    volumes: tuple[str, ...]
    """Named volumes that may be mounted."""
    network: str
    devices: tuple[str, ...] = ()
    """Host devices, like /dev/dri."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request does not pass."""

    reason: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A request may pass: at once, if `container` is ours, or with this body if `create` is asked for."""

    container: str | None = None
    create: bool = False
    network: bool = False


_PLAIN = (
    ("GET", r"/_ping"),
    ("HEAD", r"/_ping"),
    ("GET", r"/version"),
    ("GET", r"/info"),
    ("GET", r"/events"),
    ("GET", r"/containers/json"),
    ("GET", r"/images/json"),
    ("GET", rf"/images/{_IMAGE}/json"),
    ("GET", r"/networks"),
    ("GET", rf"/networks/{_NETWORK}"),
)
_OF_A_CONTAINER = (
    ("GET", rf"/containers/{_ID}/json"),
    ("GET", rf"/containers/{_ID}/logs"),
    ("GET", rf"/containers/{_ID}/stats"),
    ("POST", rf"/containers/{_ID}/start"),
    ("POST", rf"/containers/{_ID}/stop"),
    ("POST", rf"/containers/{_ID}/kill"),
    ("POST", rf"/containers/{_ID}/unpause"),
    ("POST", rf"/containers/{_ID}/wait"),
    ("DELETE", rf"/containers/{_ID}"),
)


def judge(method: str, path: str, query: Mapping[str, str], policy: Policy) -> Passage | Refusal:
    """Decide by method, path and query; a body is judged by `judge_creation` or `judge_network`.

    Args:
        path: as it came, not decoded: an escaped character is refused.
    """
    for allowed, pattern in _PLAIN:
        if method == allowed and re.fullmatch(_VERSION + pattern, path):
            return Passage()
    for allowed, pattern in _OF_A_CONTAINER:
        match = re.fullmatch(_VERSION + pattern, path)
        if method == allowed and match:
            return Passage(container=match["container"])
    if method == "POST" and re.fullmatch(_VERSION + r"/containers/create", path):
        return Passage(create=True)
    if method == "POST" and re.fullmatch(_VERSION + r"/networks/create", path):
        return Passage(network=True)
    if method == "POST" and re.fullmatch(_VERSION + r"/images/create", path):
        return _judge_pull(query, policy)
    return Refusal(f"{method} {path[:200]} is nothing that running engines needs")


def _judge_pull(query: Mapping[str, str], policy: Policy) -> Passage | Refusal:
    extra = query.keys() - {"fromImage", "tag", "platform"}
    if extra:
        return Refusal(f"an image may be pulled, nothing else: {', '.join(sorted(extra))} is not allowed")
    image, tag = query.get("fromImage", ""), query.get("tag", "")
    reference = f"{image}{'@' if tag.startswith('sha256:') else ':'}{tag}" if tag else image
    return Passage() if image_allowed(reference, policy) else Refusal(f"the image {reference!r} is not on the list")


def image_allowed(reference: str, policy: Policy) -> bool:
    """Whether a reference is on the list; one without a tag means `latest`."""
    named = reference if re.search(r":[^/]*$", reference) or "@" in reference else f"{reference}:latest"
    return any(fnmatch.fnmatchcase(named, pattern) for pattern in policy.images)


def is_ours(labels: object) -> bool:
    """Whether a container with these labels is an engine or a probe of Cortex."""
    return isinstance(labels, Mapping) and any(label in labels for label in LABELS)


def image_id(body: object) -> str | None:
    """The id of the image that a create names by id; its names must be looked up before it is judged."""
    image: object = cast("dict[str, object]", body).get("Image") if isinstance(body, dict) else None
    return image if isinstance(image, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", image) else None


def judge_creation(body: object, policy: Policy, image_names: Sequence[str] = ()) -> Refusal | None:
    """Why a container may not be made from this body; None when it may.

    Args:
        image_names: names of the image, when the body names it by id.
    """
    if not isinstance(body, dict):
        return Refusal("the body is not an object")
    fields = cast("dict[str, Any]", body)
    if reason := _unknown(fields, _CONFIG):
        return Refusal(reason)
    if not any(image_allowed(name, policy) for name in (str(fields.get("Image", "")), *image_names)):
        return Refusal(f"the image {str(fields.get('Image'))[:200]!r} is not on the list")
    if not is_ours(fields.get("Labels")):
        return Refusal(f"a container needs one of the labels {', '.join(LABELS)}")
    host: object = fields.get("HostConfig") or {}
    if not isinstance(host, dict):
        return Refusal("HostConfig is not an object")
    return _judge_host(cast("dict[str, Any]", host), policy) or _judge_networks(fields, policy)


_CONFIG = frozenset(
    [
        "AttachStderr",
        "AttachStdin",
        "AttachStdout",
        "Cmd",
        "Entrypoint",
        "Env",
        "ExposedPorts",
        "Healthcheck",
        "HostConfig",
        "Hostname",
        "Image",
        "Labels",
        "NetworkDisabled",
        "NetworkingConfig",
        "OpenStdin",
        "StdinOnce",
        "StopSignal",
        "StopTimeout",
        "Tty",
        "User",
        "Volumes",
        "WorkingDir",
    ]
)
_LIMITS = frozenset(
    [
        "AutoRemove",
        "CapDrop",
        "ConsoleSize",
        "CpuPeriod",
        "CpuQuota",
        "CpuShares",
        "Init",
        "LogConfig",
        "Memory",
        "MemoryReservation",
        "MemorySwap",
        "NanoCpus",
        "OomKillDisable",
        "PidsLimit",
        "ReadonlyRootfs",
        "ShmSize",
    ]
)
"""Fields of HostConfig that only take something away from a container."""

_CHECKED = frozenset(
    [
        "Binds",
        "Mounts",
        "NetworkMode",
        "PortBindings",
        "SecurityOpt",
        "RestartPolicy",
        "DeviceRequests",
        "Devices",
        "GroupAdd",
        "Ulimits",
        "Tmpfs",
        "Runtime",
        "IpcMode",
    ]
)


def _unknown(fields: Mapping[str, Any], known: frozenset[str]) -> str | None:
    """Fields that say something and are not known; empty values say nothing in Docker's API."""
    folded = {name.casefold() for name in known}
    wrong = [
        name
        for name, value in fields.items()
        if name not in known
        and (value not in (None, False, 0, "", [], {}) or name.casefold() in folded or not name.isascii())
    ]
    names = ", ".join(sorted(wrong))[:300]
    return f"these fields are not allowed: {names}" if names else None


def _judge_host(host: Mapping[str, Any], policy: Policy) -> Refusal | None:
    if reason := _unknown(host, _LIMITS | _CHECKED):
        return Refusal(f"HostConfig: {reason}")
    checks = (
        _judge_privileges(host),
        _judge_mounts(host, policy),
        _judge_devices(host, policy),
        _judge_ports(host),
        _judge_network_mode(host, policy),
    )
    return next((Refusal(reason) for reason in checks if reason), None)


def _judge_privileges(host: Mapping[str, Any]) -> str | None:
    if "ALL" not in (host.get("CapDrop") or ()):
        return "an engine drops all capabilities"
    options = list(host.get("SecurityOpt") or ())
    if options not in (["no-new-privileges:true"], ["no-new-privileges"]):
        return "the only security option is no-new-privileges, and it must be given"
    if (host.get("RestartPolicy") or {}).get("Name", "") not in ("", "no"):
        return "the orchestrator restarts engines, not Docker"
    if host.get("Runtime") not in (None, "", "runc", "nvidia"):
        return "this runtime is not allowed"
    if host.get("IpcMode") not in (None, "", "private", "none"):
        return "an engine's shared memory is its own"
    if any(str(one.get("Name", "")).lower() != "memlock" for one in host.get("Ulimits") or ()):
        return "the only limit that may be raised is memlock"
    return None


def _judge_mounts(host: Mapping[str, Any], policy: Policy) -> str | None:
    if host.get("Binds"):
        return "mounts are given as Mounts, not as Binds"
    for mount in host.get("Mounts") or ():
        if reason := _judge_mount(cast("dict[str, Any]", mount), policy):
            return reason
    return None


def _judge_mount(mount: Mapping[str, Any], policy: Policy) -> str | None:
    kind, source = mount.get("Type"), mount.get("Source")
    if reason := _unknown(mount, frozenset({"Type", "Source", "Target", "ReadOnly"})):
        return f"a mount: {reason}"
    if kind == "bind":
        if source not in policy.binds:
            return f"the host folder {str(source)[:200]!r} may not be mounted"
        return None if mount.get("ReadOnly") is True else "host folders are mounted read-only"
    if kind == "volume":
        return None if source in policy.volumes else f"the volume {str(source)[:200]!r} may not be mounted"
    return f"a mount of type {str(kind)[:40]!r} is not allowed"


def _judge_devices(host: Mapping[str, Any], policy: Policy) -> str | None:
    for device in host.get("Devices") or ():
        if device.get("PathOnHost") not in policy.devices:
            return f"the device {str(device.get('PathOnHost'))[:100]!r} may not be used"
    for request in host.get("DeviceRequests") or ():
        if request.get("Driver") not in (None, "", "nvidia") or request.get("Options"):
            return "a GPU is asked for without a driver's options"
        if request.get("Capabilities") != [["gpu"]]:
            return "the only devices that may be asked for are GPUs"
    if any(not str(group).isdecimal() or str(group) == "0" for group in host.get("GroupAdd") or ()):
        return "groups are given by number, and root's is not allowed"
    return None


def _judge_ports(host: Mapping[str, Any]) -> str | None:
    bindings = cast("Mapping[str, Sequence[Mapping[str, str]] | None]", host.get("PortBindings") or {})
    for published in bindings.values():
        if any(one.get("HostIp") != "127.0.0.1" for one in published or ()):
            return "a port is published on 127.0.0.1 or not at all"
    return None


def _judge_network_mode(host: Mapping[str, Any], policy: Policy) -> str | None:
    if host.get("NetworkMode") in (policy.network, "none"):
        return None
    return f"an engine lives in the network {policy.network}, or in none"


def _judge_networks(fields: Mapping[str, Any], policy: Policy) -> Refusal | None:
    config = cast("Mapping[str, Any]", fields.get("NetworkingConfig") or {})
    if reason := _unknown(config, frozenset({"EndpointsConfig"})):
        return Refusal(f"NetworkingConfig: {reason}")
    others = set(config.get("EndpointsConfig") or {}) - {policy.network}
    return Refusal(f"the network {min(others)[:100]!r} is not allowed") if others else None


def judge_network(body: object, policy: Policy) -> Refusal | None:
    """Why a network may not be made from this body; None when it is the engines' own bridge."""
    if not isinstance(body, dict):
        return Refusal("the body is not an object")
    fields = cast("dict[str, Any]", body)
    if fields.get("Name") != policy.network:
        return Refusal(f"the only network that may be made is {policy.network}")
    if fields.get("Driver") not in (None, "", "bridge"):
        return Refusal("the engines' network is a bridge")
    known = frozenset({"Name", "Driver", "Labels", "CheckDuplicate", "Internal", "Attachable", "Options"})
    if reason := _unknown(fields, known):
        return Refusal(reason)
    options = cast("Mapping[str, str]", fields.get("Options") or {})
    allowed = {"com.docker.network.bridge.enable_icc", "com.docker.network.bridge.enable_ip_masquerade"}
    return Refusal("this option of a network is not allowed") if options.keys() - allowed else None
