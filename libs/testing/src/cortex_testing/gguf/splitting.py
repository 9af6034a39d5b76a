"""Takes a valid GGUF file apart (trusting it) and splits it as llama-gguf-split does."""

import struct
from functools import partial
from math import prod
from pathlib import Path

from cortex_testing.gguf.writer import (
    BLOCKS,
    LETTERS,
    REFERENCE_TENSORS_PER_PART,
    Dtype,
    GgufBuilder,
    Kind,
    RawTensor,
    padded,
)


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, letters: str) -> tuple[int, ...]:
        values = struct.unpack_from(f"<{letters}", self.data, self.at)
        self.at += struct.calcsize(f"<{letters}")
        return values

    def string(self) -> str:
        (length,) = self.take("Q")
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def skip_value(self, kind: int) -> None:
        if kind == Kind.STRING:
            self.string()
        elif kind == Kind.ARRAY:
            element, count = self.take("IQ")
            if element == Kind.STRING:
                for _ in range(count):
                    self.string()
            else:
                self.at += count * struct.calcsize(LETTERS[Kind(element)])
        else:
            self.at += struct.calcsize(LETTERS[Kind(kind)])


def read_raw(path: Path) -> GgufBuilder:
    """A builder that writes the same model again; tensor data is read from the file when it is written."""
    cursor = _Cursor(path.read_bytes())
    cursor.at = 4
    version, tensor_count, entry_count = cursor.take("Iqq")
    gguf = GgufBuilder(None, version=version)
    for _ in range(entry_count):
        key = cursor.string()
        start = cursor.at
        (kind,) = cursor.take("I")
        cursor.skip_value(kind)
        gguf.raw(key, cursor.data[start : cursor.at])
        if key == "general.alignment":
            (gguf.alignment,) = struct.unpack_from("<I", cursor.data, start + 4)
    infos: list[tuple[str, tuple[int, ...], int, int]] = []
    for _ in range(tensor_count):
        name = cursor.string()
        (dimensions,) = cursor.take("I")
        dims = cursor.take(f"{dimensions}Q")
        type_id, offset = cursor.take("IQ")
        infos.append((name, dims, type_id, offset))
    data_start = padded(cursor.at, gguf.alignment)
    for name, dims, type_id, offset in infos:
        elements, block = BLOCKS[Dtype(type_id)]
        size = prod(dims) // elements * block
        content = partial(_slice, path, data_start + offset, size)
        gguf.tensors.append(RawTensor(name, dims, type_id, size, content))
    return gguf


def _slice(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def split_file(
    source: Path,
    folder: Path,
    count: int | None = None,
    *,
    stem: str | None = None,
    max_tensors: int = REFERENCE_TENSORS_PER_PART,
    tensor_first: bool = True,
) -> list[Path]:
    """Split a real file into `count` parts, or into parts of `max_tensors` tensors; returns the paths in order."""
    gguf = read_raw(source)
    name = stem or source.stem
    return gguf.write_split(folder, name, count, max_tensors=max_tensors, tensor_first=tensor_first)
