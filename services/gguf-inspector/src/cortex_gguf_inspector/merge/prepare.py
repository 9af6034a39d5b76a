"""From what a client names to a plan: finds the parts, checks that they are one whole model, chooses the target."""

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from cortex_gguf_inspector.errors import GgufError, GgufErrorCode, unreadable
from cortex_gguf_inspector.header import Header
from cortex_gguf_inspector.inspect import next_magic, read_set
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.merge.plan import MergePlan, Part, Source, plan_join, plan_split
from cortex_gguf_inspector.paths import ModelsRoot, parse_client_path
from cortex_gguf_inspector.reader import read_header
from cortex_gguf_inspector.splits import (
    SplitName,
    check_parts,
    choose_model,
    missing_parts,
    order_join_parts,
    parse_join_name,
    parse_split_name,
)
from cortex_gguf_inspector.window import FileSource

MAX_ALIGNMENT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Prepared:
    """A merge that can begin. `identity` is the content identity of the parts."""

    plan: MergePlan
    folder: PurePosixPath
    name: str
    identity: str


class ConcatSource:
    """The pieces of a file, read as the file they make. Opens one piece at a time."""

    def __init__(self, models: ModelsRoot, parts: list[Source]) -> None:
        self._models = models
        self._parts = parts

    @property
    def size(self) -> int:
        return sum(part.size for part in self._parts)

    def read_at(self, offset: int, length: int) -> bytes:
        data = b""
        start = 0
        for part in self._parts:
            if len(data) < length and start <= offset + len(data) < start + part.size:
                with self._models.open_file(PurePosixPath(part.path)) as descriptor:
                    data += FileSource(descriptor).read_at(offset + len(data) - start, length - len(data))
            start += part.size
        return data


class SliceSource:
    """A file from a position on."""

    def __init__(self, descriptor: int, base: int) -> None:
        self._whole = FileSource(descriptor)
        self._base = base

    @property
    def size(self) -> int:
        return self._whole.size - self._base

    def read_at(self, offset: int, length: int) -> bytes:
        return self._whole.read_at(self._base + offset, length)


def prepare(models: ModelsRoot, path: str, limits: Limits) -> Prepared:
    """Plan the merge of what a client names: any part of a set, or a folder that holds one set.

    Raises:
        GgufError: nothing to merge, parts missing or damaged, or a path that is refused.
    """
    asked = parse_client_path(path)
    try:
        return _prepare(models, asked, limits)
    except OSError as error:
        raise unreadable(asked.name, error) from error


def _prepare(models: ModelsRoot, asked: PurePosixPath, limits: Limits) -> Prepared:
    if models.is_folder(asked):
        names = models.names(asked, limits.folder_entries)
        asked = asked / choose_set(names)
    if parse_join_name(asked.name) is not None:
        return _prepare_join(models, asked, limits)
    split = parse_split_name(asked.name)
    first = asked if split is None else asked.with_name(split.name_of(1))
    try:
        headers = read_set(models, first, limits)
    except GgufError as error:
        if error.reason is not GgufErrorCode.SPLIT_CONCATENATED:
            raise
        return _prepare_concatenated(models, first, limits)
    return _prepare_split(models, first, headers)


def choose_set(names: Sequence[str]) -> str:
    """The set of a folder: what was merged of it already may lie beside it.

    Raises:
        GgufError: as `choose_model`.
    """
    joins = sorted(name for name in names if parse_join_name(name) is not None)
    parts = [name for name in names if parse_split_name(name) is not None]
    if joins and not parts:
        return joins[0]
    return choose_model(parts or names)


def _prepare_split(models: ModelsRoot, first: PurePosixPath, headers: list[Header]) -> Prepared:
    split = parse_split_name(first.name)
    if split is None or len(headers) == 1:
        raise GgufError(GgufErrorCode.NOT_SPLIT, f"{first.name} is one file already: there is nothing to merge")
    sources = [look_at(models, first.with_name(split.name_of(part))) for part in range(1, split.count + 1)]
    for source, header in zip(sources, headers, strict=True):
        if source.size != header.file_size:
            raise GgufError(GgufErrorCode.TRUNCATED, f"{source.path} changed while it was read: try again")
    _check_alignment(headers[0])
    parts = [Part(number, 0, header) for number, header in enumerate(headers)]
    with models.open_file(first) as descriptor:
        raw = FileSource(descriptor).read_at(0, headers[0].header_size)
    plan = plan_split(sources, parts, raw, "split")
    return Prepared(plan, first.parent, f"{split.prefix}.gguf", _identity(headers))


def _prepare_concatenated(models: ModelsRoot, file: PurePosixPath, limits: Limits) -> Prepared:
    """Take apart what `cat` put together: each part begins where the one before ends."""
    source = look_at(models, file)
    with models.open_file(file) as descriptor:
        headers, bases = read_concatenated(descriptor, limits)
        raw = FileSource(descriptor).read_at(0, headers[0].header_size)
    _check_alignment(headers[0])
    check_parts(SplitName(file.stem, 1, len(headers)), headers)
    parts = [Part(0, base, header) for base, header in zip(bases, headers, strict=True)]
    name = parse_split_name(file.name)
    target = f"{name.prefix if name else file.stem}-merged.gguf"
    return Prepared(plan_split([source], parts, raw, "concatenated"), file.parent, target, _identity(headers))


def _check_alignment(first: Header) -> None:
    """Every tensor is padded to it, so a hostile value would fill the disk."""
    if first.alignment > MAX_ALIGNMENT:
        message = f"general.alignment is {first.alignment}; up to {MAX_ALIGNMENT} can be merged"
        raise GgufError(GgufErrorCode.LIMIT_EXCEEDED, message)


def read_concatenated(descriptor: int, limits: Limits) -> tuple[list[Header], list[int]]:
    """Headers of the parts that `cat` put into one file, and where each begins.

    Raises:
        GgufError: a part is damaged, or fewer or more parts follow each other than part 1 announces.
    """
    headers: list[Header] = []
    bases: list[int] = []
    base: int | None = 0
    tensors = 0
    while base is not None and len(headers) <= limits.split_parts:
        source = SliceSource(descriptor, base)
        headers.append(read_header(source, replace(limits, tensors=max(1, limits.tensors - tensors))))
        bases.append(base)
        tensors += len(headers[-1].tensors)
        following = next_magic(source, headers[-1])
        base = None if following is None else base + following
    count = headers[0].integer("split.count") or 0
    if count != len(headers):
        message = f"the file holds {len(headers)} parts put together with 'cat', but part 1 announces {count}"
        raise GgufError(GgufErrorCode.SPLIT_INCOMPLETE, message)
    return headers, bases


def _prepare_join(models: ModelsRoot, file: PurePosixPath, limits: Limits) -> Prepared:
    sources = join_sources(models, file, limits)
    header = read_joined(models, sources, limits)
    target = parse_join_name(file.name)
    assert target is not None
    return Prepared(plan_join(sources), file.parent, target.target, header.digest.hex())


def join_sources(models: ModelsRoot, file: PurePosixPath, limits: Limits) -> list[Source]:
    """All pieces of the byte-wise set that a file belongs to, in order.

    Raises:
        GgufError: `split_incomplete` when one is missing.
    """
    mine = parse_join_name(file.name)
    assert mine is not None
    names = [
        name
        for name in models.names(file.parent, limits.folder_entries)
        if (other := parse_join_name(name)) is not None and (other.target, other.style) == (mine.target, mine.style)
    ]
    ordered, missing = order_join_parts(names)
    if missing:
        shown = [f"piece {number + (1 if mine.count else 0)} of {mine.target}" for number in missing]
        raise missing_parts(shown, mine.count or len(ordered) + len(missing))
    return [look_at(models, file.with_name(name)) for name in ordered]


def read_joined(models: ModelsRoot, sources: list[Source], limits: Limits) -> Header:
    """The header of the file that the pieces make, checked against the size of all of them, before anything is joined.

    Raises:
        GgufError: the pieces are no whole GGUF file.
    """
    try:
        return read_header(ConcatSource(models, sources), limits)
    except GgufError as error:
        if error.reason is not GgufErrorCode.TRUNCATED:
            raise
        message = f"the last pieces are missing or cut off: together, {error.message}"
        raise GgufError(GgufErrorCode.SPLIT_INCOMPLETE, message, offset=error.offset) from error
    except OSError as error:
        raise unreadable("a piece", error) from error


def look_at(models: ModelsRoot, path: PurePosixPath) -> Source:
    """A file's size and age. Raises GgufError."""
    with models.open_file(path) as descriptor:
        found = os.fstat(descriptor)
    return Source(str(path), found.st_size, found.st_mtime_ns, found.st_ino)


def target_of(models: ModelsRoot, prepared: Prepared, output: str | None, cache: PurePosixPath | None) -> PurePosixPath:
    """Where the merged file goes: what the client says, else the cache folder by content identity, else beside the parts.

    Raises:
        GgufError: the output is no path of a `.gguf` file in a folder that exists.
    """
    if output is not None:
        target = parse_client_path(output)
        if models.exists(target) and models.is_folder(target):
            return target / prepared.name
        if not target.name.lower().endswith(".gguf"):
            raise GgufError(GgufErrorCode.INVALID_PATH, "the output must end in '.gguf'")
        if parse_split_name(target.name) is not None:
            message = "the output must not be named like a part of a set: the engine would look for the others"
            raise GgufError(GgufErrorCode.INVALID_PATH, message)
        return target
    if cache is None:
        return prepared.folder / prepared.name
    return _cache_folder(models, cache, prepared.identity) / prepared.name


def _cache_folder(models: ModelsRoot, cache: PurePosixPath, identity: str) -> PurePosixPath:
    folder = PurePosixPath(".")
    for part in (*cache.parts, identity[:16]):
        with models.open_folder(folder) as descriptor:
            try:
                os.mkdir(part, 0o755, dir_fd=descriptor)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(part, dir_fd=descriptor).st_mode):
                    raise
            except OSError as error:
                message = f"the merge folder {cache} cannot be made: {os.strerror(error.errno or 0)}"
                raise GgufError(GgufErrorCode.WRITE_FAILED, message) from error
        folder = folder / part
    return folder


def _identity(headers: list[Header]) -> str:
    return hashlib.sha256(b"".join(header.digest for header in headers)).hexdigest()
