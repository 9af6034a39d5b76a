"""Checks a model file or set from end to end: complete, every tensor inside its file, SHA-256 of every file."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cortex_contracts.library import VerifiedFileV1, VerifyRequestV1, VerifyResultV1
from cortex_gguf_inspector.checksum import ChecksumCancelled, sha256_of_file
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode, unreadable
from cortex_gguf_inspector.header import Header
from cortex_gguf_inspector.inspect import read_set
from cortex_gguf_inspector.library.safetensors import read_folder
from cortex_gguf_inspector.library.tree import FoundFile
from cortex_gguf_inspector.library.units import Unit, UnitKind, group
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.merge.prepare import join_sources, look_at, read_joined
from cortex_gguf_inspector.paths import ModelsRoot, parse_client_path
from cortex_gguf_inspector.splits import choose_model, parse_join_name, parse_split_name

Progress = Callable[[int, int], None]


def _ignore(done: int, total: int) -> None: ...


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Subject:
    path: str
    files: Sequence[FoundFile]
    tensors: Sequence[int]
    problems: Sequence[str]


def verify_model(
    root: Path,
    request: VerifyRequestV1,
    limits: Limits | None = None,
    progress: Progress = _ignore,
    stop: Callable[[], bool] = _never,
) -> VerifyResultV1:
    """Verify what a client names: a file, any part of a set, a folder with one model, a safetensors folder.

    What is wrong with the content is a problem in the result.

    Raises:
        GgufError: the path is refused, or `stop` said so.
    """
    started = time.monotonic()
    models, path = ModelsRoot(root), parse_client_path(request.path)
    try:
        subject = _subject(models, path, limits or Limits())
    except OSError as error:
        raise unreadable(path.name, error) from error
    problems = list(subject.problems)
    sums: list[str | None] = [None] * len(subject.files)
    if request.checksum:
        sums = list(_checksums(models, subject.files, progress, stop))
        problems.extend(_differs(sums, request.expected_sha256))
    files = tuple(
        VerifiedFileV1(path=str(file.path), size=file.size, tensors=tensors, sha256=found)
        for file, tensors, found in zip(subject.files, subject.tensors, sums, strict=True)
    )
    return VerifyResultV1(
        path=subject.path,
        ok=not problems,
        files=files,
        total_bytes=sum(file.size for file in files),
        tensors=sum(file.tensors for file in files),
        problems=tuple(problems),
        seconds=round(time.monotonic() - started, 3),
    )


def verify_file(
    path: Path | str, *, checksum: bool = True, expected_sha256: str | None = None, progress: Progress = _ignore
) -> VerifyResultV1:
    """Verify anything on this machine; the result's paths are absolute. Errors as `verify_model`."""
    below = str(Path(os.path.abspath(path)).relative_to("/"))
    request = VerifyRequestV1(path=below, checksum=checksum, expected_sha256=expected_sha256)
    result = verify_model(Path("/"), request, progress=progress)
    files = tuple(file.model_copy(update={"path": f"/{file.path}"}) for file in result.files)
    return result.model_copy(update={"path": f"/{result.path}", "files": files})


def _subject(models: ModelsRoot, path: PurePosixPath, limits: Limits) -> _Subject:
    if models.is_folder(path):
        names = models.names(path, limits.folder_entries)
        units = group([_found(models, path / name) for name in names if name.endswith((".safetensors", ".json"))])
        unit = next((unit for unit in units if unit.kind is UnitKind.SAFETENSORS), None)
        if unit is not None:
            return _hub_folder(models, unit)
        joins = sorted(name for name in names if parse_join_name(name) is not None)
        has_gguf = any(name.lower().endswith(".gguf") for name in names)
        path /= joins[0] if joins and not has_gguf else choose_model(names)
    if parse_join_name(path.name) is not None:
        return _joined(models, path, limits)
    split = parse_split_name(path.name)
    names = [path.name] if split is None else [split.name_of(n) for n in range(1, split.count + 1)]
    first = path.with_name(names[0])
    try:
        headers = read_set(models, first, limits)
    except GgufError as error:
        if not models.exists(path) or error.reason in _PATH_ERRORS:
            raise
        there = [_found(models, path.with_name(name)) for name in names if models.exists(path.with_name(name))]
        return _Subject(str(first), there, [0] * len(there), [error.message])
    files = [_found(models, path.with_name(name)) for name in names[: len(headers)]]
    return _Subject(str(first), files, [len(header.tensors) for header in headers], _sizes(files, headers))


_PATH_ERRORS = (
    GgufErrorCode.PATH_OUTSIDE_MODELS_ROOT,
    GgufErrorCode.MODELS_DIR_UNAVAILABLE,
    GgufErrorCode.NOT_A_REGULAR_FILE,
    GgufErrorCode.FILE_UNREADABLE,
)


def _sizes(files: Sequence[FoundFile], headers: Sequence[Header]) -> list[str]:
    """A file that changed between the reading of its header and now."""
    pairs = zip(files, headers, strict=True)
    return [f"{file.path.name} changes while it is read" for file, header in pairs if file.size != header.file_size]


def _joined(models: ModelsRoot, path: PurePosixPath, limits: Limits) -> _Subject:
    try:
        sources = join_sources(models, path, limits)
        tensors = len(read_joined(models, sources, limits).tensors)
        problems: list[str] = []
    except GgufError as error:
        sources, tensors, problems = [look_at(models, path)], 0, [error.message]
    files = [FoundFile(PurePosixPath(s.path), s.size, s.mtime_ns, s.inode) for s in sources]
    return _Subject(str(path), files, [tensors] + [0] * (len(files) - 1), problems)


def _hub_folder(models: ModelsRoot, unit: Unit) -> _Subject:
    folder = read_folder(models, unit)
    problems = [*folder.problems, *(f"{name} is missing" for name in folder.missing)]
    tensors = [folder.tensors] + [0] * (len(unit.files) - 1)
    return _Subject(str(unit.path), unit.files, tensors, problems)


def _found(models: ModelsRoot, path: PurePosixPath) -> FoundFile:
    source = look_at(models, path)
    return FoundFile(path, source.size, source.mtime_ns, source.inode)


def _checksums(
    models: ModelsRoot, files: Sequence[FoundFile], progress: Progress, stop: Callable[[], bool]
) -> list[str | None]:
    total, before = sum(file.size for file in files), 0
    sums: list[str | None] = []
    for file in files:

        def tell(done: int, size: int, before: int = before) -> None:
            progress(before + done, total)

        with models.open_file(file.path) as descriptor:
            try:
                sums.append(sha256_of_file(descriptor, progress=tell, cancelled=stop))
            except ChecksumCancelled as error:
                raise GgufError(GgufErrorCode.TIMEOUT, "the verification was stopped") from error
            except OSError as error:
                raise unreadable(file.path.name, error) from error
        before += file.size
    return sums


def _differs(sums: Sequence[str | None], expected: str | None) -> list[str]:
    if expected is None:
        return []
    if len(sums) != 1:
        return ["a SHA-256 can be compared with one file only: give the file, not the set"]
    return [] if sums[0] == expected.lower() else [f"the SHA-256 is {sums[0]}, expected {expected.lower()}"]
