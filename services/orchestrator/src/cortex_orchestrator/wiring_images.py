"""Builds the list of this node's engine images."""

from cortex_contracts.base import NodeId
from cortex_contracts.enums import EngineType
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.adapters.docker_images import DockerImages
from cortex_orchestrator.handlers.images import Images
from cortex_orchestrator.settings import Settings


def new_images(settings: Settings) -> Images:
    """Lazy: nothing is looked at before it is asked."""
    docker = DockerImages(DockerEngine(settings.docker_url)) if settings.runtime != "process" else None
    defaults = {EngineType.LLAMACPP: settings.llamacpp_image, EngineType.VLLM: settings.vllm_image}
    return Images(NodeId(settings.node), docker, defaults)
