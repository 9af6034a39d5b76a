"""Builds the runtime and the catalog that the settings name."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cortex_contracts.enums import EngineType
from cortex_orchestrator.adapters.docker_catalog import CatalogSettings, DockerCatalog
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.adapters.docker_mapping import DockerPlace, EngineLimits
from cortex_orchestrator.adapters.docker_runtime import DockerRuntime
from cortex_orchestrator.adapters.process_catalog import ProcessCatalog
from cortex_orchestrator.adapters.process_runtime import ProcessRuntime
from cortex_orchestrator.adapters.swarm_mapping import SwarmPlace
from cortex_orchestrator.adapters.swarm_runtime import SwarmRuntime
from cortex_orchestrator.ports import EngineCatalog, EngineRuntime
from cortex_orchestrator.settings import Settings


@dataclass(frozen=True, slots=True)
class Engines:
    """`versions` gives what is known of the node's engines by now: type -> version."""

    runtime: EngineRuntime
    catalog: EngineCatalog
    versions: Callable[[], Mapping[str, str]]


def new_engines(settings: Settings) -> Engines:
    """Lazy: nothing is contacted yet."""
    if settings.runtime == "process":
        configured = {EngineType.LLAMACPP: settings.llama_server, EngineType.VLLM: settings.vllm}
        runtime = ProcessRuntime(settings.state_dir.absolute(), os.environ, log_bytes=settings.engine_log_bytes)
        return Engines(runtime, ProcessCatalog(configured, os.environ), dict)
    engine = DockerEngine(settings.docker_url)
    defaults = {EngineType.LLAMACPP: settings.llamacpp_image, EngineType.VLLM: settings.vllm_image}
    catalog = DockerCatalog(engine, CatalogSettings(defaults, settings.node, settings.offline, settings.pull_timeout_s))
    if settings.runtime == "swarm":
        return Engines(SwarmRuntime(engine, _swarm_place(settings)), catalog, lambda: catalog.versions)
    return Engines(DockerRuntime(engine, _docker_place(settings)), catalog, lambda: catalog.versions)


def _limits(settings: Settings) -> EngineLimits:
    return EngineLimits(
        pids=settings.engine_pids,
        cpus=settings.engine_cpus,
        tmpfs_bytes=settings.engine_tmpfs_bytes,
        devices=settings.docker_devices,
        device_groups=settings.docker_device_groups,
    )


def _docker_place(settings: Settings) -> DockerPlace:
    internal = settings.docker_internal
    if internal is None:
        internal = settings.offline and not settings.docker_publish
    return DockerPlace(settings.docker_network, settings.docker_publish, settings.node, _limits(settings), internal)


def _swarm_place(settings: Settings) -> SwarmPlace:
    return SwarmPlace(
        settings.docker_network,
        settings.node,
        settings.swarm_node,
        settings.swarm_publish,
        _limits(settings),
        settings.swarm_gpu_resource,
    )
