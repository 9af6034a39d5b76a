"""Routes of the models folder, of GGUF estimates, and of what this installation can do."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Query

from cortex_contracts.enums import EngineType, Lifecycle, RoutingPolicy, Task
from cortex_contracts.estimates import (
    EstimateRequestV1,
    EstimateResultV1,
    RecommendRequestV1,
    RecommendResultV1,
)
from cortex_contracts.library import EntryFormat, LibraryV1
from cortex_contracts.rights import Right
from cortex_kit.errors import DomainError
from cortex_registry.domain.capabilities import fields_of
from cortex_registry.domain.legacy import OLD_FIELDS
from cortex_registry.domain.model import MAX_DOCUMENT_BYTES
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.schemas.capabilities import (
    BaseDirAnswer,
    CapabilitiesAnswer,
    EngineAnswer,
    FolderAnswer,
    FoldersAnswer,
    HfConfigAnswer,
    LimitsAnswer,
    NodeCapability,
)
from cortex_registry.handlers.library import Library
from cortex_registry.handlers.observation import Observation

MAX_PAGE = 1000
_Repository = Query(max_length=256, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$")


@dataclass(frozen=True, slots=True)
class Installation:
    """What was set up."""

    engines: tuple[str, ...]
    models_dir: str | None
    models_dir_readable: bool
    max_body_bytes: int


class LibraryRoutes:
    """/admin/capabilities, /admin/models/{base-dir,…}, /admin/gguf."""

    def __init__(self, library: Library, observation: Observation, installation: Installation) -> None:
        self._library = library
        self._observation = observation
        self._installation = installation

    def router(self) -> APIRouter:
        routes = Routes("library")
        read = Right.MODELS_READ
        routes.add("GET", "/capabilities", self.capabilities, read)
        routes.add("GET", "/models/base-dir", self.base_dir, read)
        routes.add("PUT", "/models/base-dir", self.set_base_dir, Right.SYSTEM_WRITE)
        routes.add("GET", "/models/local-folders", self.folders, read)
        routes.add("GET", "/models/inspect-folder", self.inspect_folder, read)
        routes.add("GET", "/models/hf-config", self.hf_config, read)
        routes.add("GET", "/gguf/scan", self.scan, read)
        routes.add("POST", "/gguf/estimate", self.estimate, read)
        routes.add("POST", "/gguf/recommend", self.recommend, read)
        return routes.router

    async def capabilities(self) -> CapabilitiesAnswer:
        """Engines and every field of a model, with default, bounds and description; tasks, hosts, limits."""
        nodes = self._observation.nodes
        return CapabilitiesAnswer(
            version=version("cortex-registry"),
            engines=tuple(self._engine(engine) for engine in EngineType),
            tasks=tuple(Task),
            lifecycles=tuple(Lifecycle),
            routing_policies=tuple(RoutingPolicy),
            nodes=tuple(
                NodeCapability(id=node.id, runtime=node.runtime, gpus=len(node.gpus), engines=node.engines)
                for node in nodes
            ),
            runtimes=tuple(dict.fromkeys(node.runtime for node in nodes)),
            limits=LimitsAnswer(
                max_body_bytes=self._installation.max_body_bytes,
                max_model_bytes=MAX_DOCUMENT_BYTES,
                max_page=MAX_PAGE,
            ),
            old_fields=tuple(sorted(OLD_FIELDS)),
        )

    def _engine(self, engine: EngineType) -> EngineAnswer:
        enabled = engine.value in self._installation.engines
        reason = "" if enabled else "New models of this engine are switched off by the setting CORTEX_ENGINES."
        return EngineAnswer(engine_type=engine, enabled=enabled, reason=reason, fields=fields_of(engine))

    async def base_dir(self) -> BaseDirAnswer:
        """The models folder."""
        installation = self._installation
        return BaseDirAnswer(base_dir=installation.models_dir, readable=installation.models_dir_readable)

    async def set_base_dir(self) -> BaseDirAnswer:
        """Refused: engines mount the models folder, so it is a setting of every service."""
        message = "The models folder is a setting of every service: set CORTEX_MODELS_DIR and start Cortex again."
        raise DomainError("is_a_setting", message, status=409, details={"setting": "CORTEX_MODELS_DIR"})

    async def folders(self) -> FoldersAnswer:
        """Folders below the models folder that hold models."""
        return FoldersAnswer(base_dir=self._installation.models_dir, items=await self._library.folders())

    async def inspect_folder(
        self,
        folder: Annotated[str, Query(min_length=1, max_length=1024)],
        base: Annotated[str | None, Query(max_length=1024, description="Ignored: there is one base.")] = None,
    ) -> FolderAnswer:
        """What lies in a folder, and which engine suits it."""
        del base
        found = await self._library.inspect_folder(folder)
        formats = {entry.format for entry in found.entries}
        return FolderAnswer(
            folder=found.folder,
            has_gguf=EntryFormat.GGUF in formats,
            has_safetensors=EntryFormat.SAFETENSORS in formats,
            recommended_engine=found.engine,
            reason=found.reason,
            items=list(found.entries),
            complete=found.complete,
        )

    async def hf_config(
        self,
        repo_id: Annotated[str | None, _Repository] = None,
        local_path: Annotated[str | None, Query(min_length=1, max_length=1024)] = None,
    ) -> HfConfigAnswer:
        """config.json of a folder below the models folder, or of a repository where lookups are allowed."""
        source, config = await self._library.config(repo_id=repo_id, local_path=local_path)
        return HfConfigAnswer(source=source, config=config)

    async def scan(
        self,
        path: Annotated[str, Query(max_length=1024, description="Only this folder and below.")] = ".",
        refresh: Annotated[bool, Query(description="Look at the disk now.")] = False,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=500)] = 200,
    ) -> LibraryV1:
        """What lies in the models folder."""
        return await self._library.scan(path, refresh=refresh, offset=offset, limit=limit)

    async def estimate(self, body: EstimateRequestV1) -> EstimateResultV1:
        """Memory of a model. Without `devices` and `host` the largest node of this installation is taken."""
        return await self._library.estimate(body)

    async def recommend(self, body: RecommendRequestV1) -> RecommendResultV1:
        """How to serve a model, with the reasons. Hardware as for an estimate."""
        return await self._library.recommend(body)
