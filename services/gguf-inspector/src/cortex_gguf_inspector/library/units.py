"""Groups files into things: a file, a split set, pieces of a file, a safetensors folder. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import PurePosixPath

from cortex_gguf_inspector.library.tree import FoundFile
from cortex_gguf_inspector.splits import SplitName, parse_join_name, parse_split_name


class UnitKind(Enum):
    FILE = auto()
    SPLIT = auto()
    JOINED = auto()
    SAFETENSORS = auto()


@dataclass(frozen=True, slots=True)
class Unit:
    """Files that are looked at together. `path` is what a client would name."""

    kind: UnitKind
    path: PurePosixPath
    files: tuple[FoundFile, ...]
    split: SplitName | None = None

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """Equal as long as no file of the unit was replaced, changed, added or removed."""
        return tuple((str(file.path), file.size, file.mtime_ns, file.inode) for file in self.files)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def group(files: Iterable[FoundFile]) -> list[Unit]:
    """Every unit, by path."""
    units: list[Unit] = []
    folders: defaultdict[PurePosixPath, list[FoundFile]] = defaultdict(list)
    for file in files:
        folders[file.path.parent].append(file)
    for folder, members in folders.items():
        units.extend(_gguf_units(folder, members))
        units.extend(_safetensors_unit(folder, members))
    return sorted(units, key=lambda unit: (str(unit.path), unit.kind.value))


def _gguf_units(folder: PurePosixPath, members: Sequence[FoundFile]) -> Iterable[Unit]:
    sets: defaultdict[tuple[str, int], list[FoundFile]] = defaultdict(list)
    pieces: defaultdict[tuple[str, str], list[FoundFile]] = defaultdict(list)
    for file in members:
        if (split := parse_split_name(file.path.name)) is not None:
            sets[split.prefix, split.count].append(file)
        elif (piece := parse_join_name(file.path.name)) is not None:
            pieces[piece.target, piece.style].append(file)
        elif file.path.suffix.lower() == ".gguf":
            yield Unit(UnitKind.FILE, file.path, (file,))
    for (prefix, count), parts in sets.items():
        split = SplitName(prefix, 1, count)
        yield Unit(UnitKind.SPLIT, folder / split.name_of(1), tuple(parts), split)
    for parts in pieces.values():
        yield Unit(UnitKind.JOINED, parts[0].path, tuple(parts))


def _safetensors_unit(folder: PurePosixPath, members: Sequence[FoundFile]) -> Iterable[Unit]:
    of_hub = [file for file in members if not _is_gguf(file.path.name)]
    if any(file.path.suffix == ".safetensors" for file in of_hub) or any(
        file.path.name.endswith((".index.json", "pytorch_model.bin", "adapter_model.bin")) for file in of_hub
    ):
        yield Unit(UnitKind.SAFETENSORS, folder, tuple(of_hub))


def _is_gguf(name: str) -> bool:
    return ".gguf" in name.lower()
