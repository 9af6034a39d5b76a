"""The files that models are made of, below the models folder."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cortex_kit.errors import DomainError
from cortex_registry.domain.deployment import parts_of
from cortex_registry.errors import UnavailableError

LOOK_S = 120.0
MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file, by its path below the models folder."""

    path: str
    source: Path
    bytes: int


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """What was looked for: what is there, and what is not, or lies elsewhere."""

    files: tuple[ModelFile, ...]
    missing: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.files)


class ModelFiles:
    """Looks; never writes."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    @property
    def problem(self) -> str | None:
        """Why there is nothing to look at, or None."""
        if self._root is None:
            return "this registry does not know the models folder (CORTEX_MODELS_DIR)"
        return None if os.access(self._root, os.R_OK | os.X_OK) else f"{self._root} cannot be read"

    async def find(self, paths: Sequence[str]) -> FoundFiles:
        """Every file of these paths; folders with all that is in them.

        Raises:
            DomainError: 409 `models_dir_unreadable`, 422 `too_many_files`.
            UnavailableError: the disk does not answer.
        """
        root = self._root
        if root is None or self.problem is not None:
            message = f"Model files cannot be backed up: {self.problem}."
            raise DomainError("models_dir_unreadable", message, status=409)
        try:
            async with asyncio.timeout(LOOK_S):
                return await asyncio.to_thread(_find, root.resolve(), paths)
        except TimeoutError as error:
            raise UnavailableError("models_dir_unavailable", "The models folder does not answer.") from error


def _find(root: Path, paths: Sequence[str]) -> FoundFiles:
    found: dict[str, ModelFile] = {}
    missing: list[str] = []
    for path in dict.fromkeys(part for one in paths for part in parts_of(one)):
        below = _files(root, root / path)
        if not below:
            missing.append(path)
        for file in below:
            name = file.relative_to(root).as_posix()
            found[name] = ModelFile(name, file, file.stat().st_size)
        if len(found) > MAX_FILES:
            raise DomainError("too_many_files", f"Models name more than {MAX_FILES} files.", status=422)
    return FoundFiles(tuple(found[name] for name in sorted(found)), tuple(missing))


def _files(root: Path, path: Path) -> list[Path]:
    """Regular files there. A link counts as what it points to, as long as that lies below the root, too."""
    if path.is_dir():
        candidates = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    else:
        candidates = [path]
    return [one for one in candidates if one.is_file() and one.resolve().is_relative_to(root)]
