"""The engines Cortex can run. A third engine is one module with an `ENGINE` and one entry here."""

from collections.abc import Mapping
from types import MappingProxyType

from cortex_contracts.enums import EngineType
from cortex_orchestrator.domain.engines import llamacpp, vllm
from cortex_orchestrator.domain.engines.base import BuildRequest, Engine

ENGINES: Mapping[EngineType, Engine] = MappingProxyType(
    {engine.type: engine for engine in (llamacpp.ENGINE, vllm.ENGINE)}
)

__all__ = ["ENGINES", "BuildRequest", "Engine"]
