"""The models folder: what lies in it, as the inspector reports it, and configurations of Hugging Face models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from pydantic import JsonValue

from cortex_contracts.enums import EngineType
from cortex_contracts.estimates import (
    EstimateRequestV1,
    EstimateResultV1,
    RecommendRequestV1,
    RecommendResultV1,
)
from cortex_contracts.library import EntryFormat, LibraryEntryV1, LibraryV1, ScanRequestV1
from cortex_kit.errors import DomainError
from cortex_registry.domain.devices import Hardware, hardware_of
from cortex_registry.domain.paths import below_root
from cortex_registry.handlers.observation import Observation

PAGE = 500
MAX_PAGES = 40


class Inspector(Protocol):
    """The inspector over request-reply.

    Raises:
        DomainError: 422 with the inspector's code.
        UnavailableError: `inspector_unavailable`.
    """

    async def scan(self, request: ScanRequestV1) -> LibraryV1: ...

    async def estimate(self, request: EstimateRequestV1) -> EstimateResultV1: ...

    async def recommend(self, request: RecommendRequestV1) -> RecommendResultV1: ...


class Configurations(Protocol):
    """config.json of Hugging Face models."""

    async def local(self, path: str) -> dict[str, JsonValue]:
        """Of a folder below the models folder.

        Raises:
            DomainError: 404 `file_not_found`, 422 `invalid_config`, 409 `models_dir_unknown`.
        """
        ...

    async def hub(self, repo_id: str) -> dict[str, JsonValue]:
        """Of a repository.

        Raises:
            DomainError: 409 `hub_lookups_off`, 404 `repo_not_found`, 422 `invalid_config`.
            UnavailableError: `hub_unavailable`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    """What lies in a folder, and which engine suits it."""

    folder: str
    entries: tuple[LibraryEntryV1, ...]
    complete: bool
    engine: EngineType | None
    reason: str


class Library:
    """Errors as those of its ports."""

    def __init__(
        self, inspector: Inspector, configurations: Configurations, observation: Observation, models_root: str | None
    ) -> None:
        self._inspector = inspector
        self._configurations = configurations
        self._observation = observation
        self._models_root = models_root

    async def scan(self, path: str, *, refresh: bool, offset: int, limit: int) -> LibraryV1:
        """One page of what lies there."""
        request = ScanRequestV1(path=self._path(path), refresh=refresh, offset=offset, limit=limit)
        return await self._inspector.scan(request)

    async def folders(self) -> list[str]:
        """Every folder that holds a model, by name."""
        entries, _ = await self._all(".")
        found: set[str] = set()
        for entry in entries:
            path = PurePosixPath(entry.path)
            found.add(str(path.parent if entry.format is EntryFormat.GGUF else path))
        return sorted(found - {"."})

    async def inspect_folder(self, folder: str) -> Folder:
        """What lies in a folder."""
        entries, complete = await self._all(self._path(folder))
        engine, reason = _recommended(entries)
        return Folder(folder, tuple(entries), complete, engine, reason)

    async def config(self, *, repo_id: str | None, local_path: str | None) -> tuple[str, dict[str, JsonValue]]:
        """The configuration and where it was read."""
        if local_path is not None:
            return "local", await self._configurations.local(below_root(local_path, "local_path", self._models_root))
        if repo_id is None:
            raise DomainError("invalid_request", "Give repo_id or local_path.", status=422)
        return "hub", await self._configurations.hub(repo_id)

    async def estimate(self, request: EstimateRequestV1) -> EstimateResultV1:
        """Memory; without devices and host those of the installation's largest node are taken."""
        path = below_root(request.path, "path", self._models_root)
        found = self._hardware(request)
        update = {"path": path, "devices": found.devices, "host": found.host}
        return await self._inspector.estimate(request.model_copy(update=update))

    async def recommend(self, request: RecommendRequestV1) -> RecommendResultV1:
        """How to serve a model; hardware as in `estimate`."""
        path = below_root(request.path, "path", self._models_root)
        found = self._hardware(request)
        update = {"path": path, "devices": found.devices, "host": found.host}
        return await self._inspector.recommend(request.model_copy(update=update))

    def _hardware(self, request: EstimateRequestV1 | RecommendRequestV1) -> Hardware:
        if {"devices", "host"} & request.model_fields_set:
            return Hardware(None, request.devices, request.host)
        return hardware_of(self._observation.nodes)

    def _path(self, path: str) -> str:
        return "." if path in ("", ".") else below_root(path, "path", self._models_root)

    async def _all(self, path: str) -> tuple[list[LibraryEntryV1], bool]:
        entries: list[LibraryEntryV1] = []
        for _ in range(MAX_PAGES):
            page = await self._inspector.scan(ScanRequestV1(path=path, offset=len(entries), limit=PAGE))
            entries += page.entries
            if len(entries) >= page.total or not page.entries:
                return entries, page.complete
        return entries, False


def _recommended(entries: Sequence[LibraryEntryV1]) -> tuple[EngineType | None, str]:
    ranked = sorted(entries, key=lambda entry: not entry.recommended)
    for entry in ranked:
        for fit in entry.engines:
            if fit.suits:
                return fit.engine, f"{entry.path}: {fit.reason}"
    reasons = [fit.reason for entry in entries for fit in entry.engines] or [entry.reason for entry in entries]
    return None, next((reason for reason in reasons if reason), "no model lies here")
