"""Inspect a GGUF model on disk. Needs no running service."""

import errno
import os
import time
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cortex_contracts.rpc import InspectResultV1
from cortex_gguf_inspector.describe import describe
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.header import Header
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.paths import ModelsRoot, parse_client_path
from cortex_gguf_inspector.reader import read_header
from cortex_gguf_inspector.sniff import MAGIC
from cortex_gguf_inspector.splits import SplitName, check_parts, choose_model, missing_parts, split_of
from cortex_gguf_inspector.window import FileSource, Source


def inspect_model(root: Path, path: str, limits: Limits | None = None) -> InspectResultV1:
    """Inspect what a client names below the models root: a file, part 1 of a split set, or a folder with one model.

    Blocks on the file system, for at most about `limits.time_budget_s`.

    Raises:
        GgufError: refused; its `code` is stable (errors.py).
    """
    limits = limits or Limits()
    models, asked = ModelsRoot(root), parse_client_path(path)
    file = asked / choose_model(models.names(asked, limits.folder_entries)) if models.is_folder(asked) else asked
    headers = read_set(models, file, limits)
    return InspectResultV1(path=str(file), gguf=describe(str(file), headers))


def inspect_file(path: Path | str, limits: Limits | None = None) -> InspectResultV1:
    """Inspect any file or folder of this machine; the result's paths are absolute.

    Raises:
        GgufError: as `inspect_model`.
    """
    absolute = Path(os.path.abspath(path))
    result = inspect_model(Path("/"), str(absolute.relative_to("/")), limits)
    found = f"/{result.path}"
    return InspectResultV1(path=found, gguf=result.gguf.model_copy(update={"path": found}))


def read_set(models: ModelsRoot, file: PurePosixPath, limits: Limits) -> list[Header]:
    """The checked headers of a model in one file, or of all parts of the set that the file opens.

    Raises:
        GgufError: as `inspect_model`.
    """
    deadline = time.monotonic() + limits.time_budget_s
    first = read_file(models, file, limits)
    check_not_concatenated(models, file, first)
    split = split_of(file.name, first, limits.split_parts)
    if split is None:
        return [first]
    _check_all_there(models, file, split)
    headers = [first]
    for part in range(2, split.count + 1):
        left = replace(
            limits,
            time_budget_s=deadline - time.monotonic(),
            tensors=limits.tensors - sum(len(header.tensors) for header in headers),
            kept_total_bytes=limits.kept_total_bytes - sum(header.kept_bytes for header in headers),
        )
        name = split.name_of(part)
        try:
            headers.append(read_file(models, file.with_name(name), left))
        except GgufError as error:
            raise error.about_part(name) from error
    check_parts(split, headers)
    return headers


def _check_all_there(models: ModelsRoot, file: PurePosixPath, split: SplitName) -> None:
    names = [split.name_of(part) for part in range(1, split.count + 1)]
    missing = [name for name in names if not models.exists(file.with_name(name))]
    if missing:
        raise missing_parts(missing, split.count)


def read_file(models: ModelsRoot, path: PurePosixPath, limits: Limits) -> Header:
    """The checked header of one file, whatever it is.

    Raises:
        GgufError: the path or the file is refused, or the file changed meanwhile.
    """
    with models.open_file(path) as descriptor:
        try:
            source = FileSource(descriptor)
            header = read_header(source, limits)
            changed = os.fstat(descriptor).st_size != source.size
        except OSError as error:
            message = f"the file cannot be read: {os.strerror(error.errno or errno.EIO)}"
            raise GgufError(GgufErrorCode.FILE_UNREADABLE, message) from error
    if changed:
        message = "the file changed its size while it was read: try again when the copy is complete"
        raise GgufError(GgufErrorCode.TRUNCATED, message)
    return header


def data_end(header: Header) -> int:
    """Offset at which the tensor data end, without padding."""
    return header.data_offset + max((tensor.offset + tensor.size for tensor in header.tensors), default=0)


def next_magic(source: Source, header: Header) -> int | None:
    """Where in the source another GGUF file begins behind this one inside the same file: parts were put together with `cat`."""
    end = data_end(header)
    padded = -(-end // header.alignment) * header.alignment
    for offset in (padded, end):
        if source.read_at(offset, len(MAGIC)) == MAGIC:
            return offset
    return None


def check_not_concatenated(models: ModelsRoot, file: PurePosixPath, header: Header) -> None:
    """Refuse a file that holds part 1 of a split set and behind it the next part.

    Raises:
        GgufError: `split_concatenated`; the text says how to make a valid file of it.
    """
    count = header.integer("split.count") or 0
    if count <= 1 or header.file_size <= data_end(header):
        return
    with models.open_file(file) as descriptor:
        if next_magic(FileSource(descriptor), header) is None:
            return
    message = (
        f"{file.name} is {count} parts of a split model put together with 'cat', which gives no valid file: only part 1 "
        f"would be seen. Run 'cortex gguf merge {file.name}', which makes one model of it, or put the original parts "
        "into one folder and give part 1"
    )
    raise GgufError(GgufErrorCode.SPLIT_CONCATENATED, message)
