"""Builds the doctor of this node."""

from collections.abc import Mapping

from cortex_contracts.base import NodeId
from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError, TransientError
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.adapters.host_checks import DockerHost, count_models, measure_disks, measure_memory
from cortex_orchestrator.domain.engines import ENGINES
from cortex_orchestrator.handlers.doctor import Doctor, Ground, Measures
from cortex_orchestrator.ports import EngineCatalog, GpuProbe
from cortex_orchestrator.settings import Settings


def new_doctor(settings: Settings, catalog: EngineCatalog, gpus: GpuProbe, clock: Clock) -> Doctor:
    """Lazy: nothing is looked at before it is asked."""

    async def programs() -> Mapping[str, str | None]:
        found: dict[str, str | None] = {}
        for engine in ENGINES.values():
            try:
                found[engine.type.value] = (await catalog.look(engine, None)).program.reference
            except (DomainError, TransientError):
                found[engine.type.value] = None
        return found

    uses_docker = settings.runtime != "process"
    images = (settings.llamacpp_image, settings.vllm_image)
    folders = [("disk of state", settings.state_dir)]
    if settings.models_dir is not None:
        folders.append(("disk of models", settings.models_dir))
    ground = Ground(
        node=NodeId(settings.node),
        models=settings.models_dir,
        folders=folders,
        docker=DockerHost(DockerEngine(settings.docker_url), images) if uses_docker else None,
        programs=programs,
        offline=settings.offline,
    )
    return Doctor(ground, Measures(measure_disks, measure_memory, count_models), gpus, clock)
