"""A GGUF writer independent of the reader under test. Layout as the reference tools write it."""

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain
from math import prod
from pathlib import Path
from typing import Self

DEFAULT_ALIGNMENT = 32
REFERENCE_TENSORS_PER_PART = 128


class Kind(IntEnum):
    """Types of metadata values."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


LETTERS = {
    Kind.U8: "B",
    Kind.I8: "b",
    Kind.U16: "H",
    Kind.I16: "h",
    Kind.U32: "I",
    Kind.I32: "i",
    Kind.F32: "f",
    Kind.BOOL: "?",
    Kind.U64: "Q",
    Kind.I64: "q",
    Kind.F64: "d",
}


class Dtype(IntEnum):
    """Some tensor types."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    IQ4_NL = 20
    BF16 = 30
    MXFP4 = 39


BLOCKS = {
    Dtype.F32: (1, 4),
    Dtype.F16: (1, 2),
    Dtype.Q4_0: (32, 18),
    Dtype.Q4_1: (32, 20),
    Dtype.Q5_0: (32, 22),
    Dtype.Q5_1: (32, 24),
    Dtype.Q8_0: (32, 34),
    Dtype.Q2_K: (256, 84),
    Dtype.Q3_K: (256, 110),
    Dtype.Q4_K: (256, 144),
    Dtype.Q5_K: (256, 176),
    Dtype.Q6_K: (256, 210),
    Dtype.IQ4_NL: (32, 18),
    Dtype.BF16: (1, 2),
    Dtype.MXFP4: (32, 17),
}
"""Elements and bytes of a block."""


def padded(size: int, alignment: int = DEFAULT_ALIGNMENT) -> int:
    """The next multiple of the alignment."""
    return -(-size // alignment) * alignment


def tensor_bytes(dims: Sequence[int], dtype: Dtype) -> int:
    """Size of a tensor's data, without padding."""
    elements, size = BLOCKS[dtype]
    return prod(dims) // elements * size


def tensor_content(name: str, size: int) -> bytes:
    """Data that depends on the name alone: every test can say what a tensor must hold."""
    piece = hashlib.sha512(name.encode()).digest()
    return (piece * (size // len(piece) + 1))[:size]


def pack_string(value: str | bytes) -> bytes:
    """A string as the format stores it."""
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(8, "little") + raw


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor to write; `dims` innermost first; `content` gives the data (None leaves a hole of zeros)."""

    name: str
    dims: tuple[int, ...]
    type_id: int
    size: int
    content: Callable[[], bytes] | None = None


@dataclass
class GgufBuilder:
    """Collects metadata and tensors; `write` makes a file, `write_split` a set of parts. Methods chain."""

    architecture: str | None = "llama"
    alignment: int = DEFAULT_ALIGNMENT
    version: int = 3
    entries: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    """Key and packed value (type included), in order."""
    tensors: list[RawTensor] = field(default_factory=list[RawTensor])

    def __post_init__(self) -> None:
        if self.architecture is not None:
            self.text("general.architecture", self.architecture)
        if self.alignment != DEFAULT_ALIGNMENT:
            self.number("general.alignment", self.alignment)

    def raw(self, key: str, packed: bytes) -> Self:
        """A value that is packed already, type included."""
        self.entries.append((key, packed))
        return self

    def text(self, key: str, value: str | bytes) -> Self:
        """A string."""
        return self.raw(key, Kind.STRING.to_bytes(4, "little") + pack_string(value))

    def number(self, key: str, value: float, kind: Kind = Kind.U32) -> Self:
        """A number, or a bool for Kind.BOOL."""
        return self.raw(key, struct.pack(f"<I{LETTERS[kind]}", kind, value))

    def numbers(self, key: str, values: Sequence[float], kind: Kind = Kind.I32) -> Self:
        """An array of numbers or bools."""
        head = struct.pack("<IIQ", Kind.ARRAY, kind, len(values))
        return self.raw(key, head + struct.pack(f"<{len(values)}{LETTERS[kind]}", *values))

    def texts(self, key: str, values: Iterable[str | bytes]) -> Self:
        """An array of strings."""
        packed = [pack_string(value) for value in values]
        return self.raw(key, struct.pack("<IIQ", Kind.ARRAY, Kind.STRING, len(packed)) + b"".join(packed))

    def own(self, **values: float | str) -> Self:
        """Keys under the architecture: int -> u32, float -> f32, str -> string; `__` stands for a dot."""
        for name, value in values.items():
            key = f"{self.architecture}.{name.replace('__', '.')}"
            if isinstance(value, str):
                self.text(key, value)
            else:
                self.number(key, value, Kind.F32 if isinstance(value, float) else Kind.U32)
        return self

    def tensor(
        self,
        name: str,
        dims: tuple[int, ...],
        dtype: Dtype = Dtype.F32,
        data: bytes | None = None,
        *,
        filled: bool = False,
    ) -> Self:
        """A tensor of zeros, of the given data, or (`filled`) of `tensor_content(name)`."""
        size = tensor_bytes(dims, dtype)
        content: Callable[[], bytes] | None = None
        if data is not None:
            if len(data) != size:
                raise ValueError(f"{name} needs {size} bytes, not {len(data)}")
            content = lambda: data
        elif filled:
            content = lambda: tensor_content(name, size)
        self.tensors.append(RawTensor(name, dims, dtype, size, content))
        return self

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(prod(tensor.dims) for tensor in self.tensors)

    @property
    def data_bytes(self) -> int:
        """Bytes of all tensors without padding."""
        return sum(tensor.size for tensor in self.tensors)

    def header(self) -> bytes:
        """Everything before the padding that precedes the data."""
        head = struct.pack("<4sIqq", b"GGUF", self.version, len(self.tensors), len(self.entries))
        entries = (pack_string(key) + packed for key, packed in self.entries)
        return head + b"".join(chain(entries, self._infos()))

    def _infos(self) -> Iterable[bytes]:
        offset = 0
        for tensor in self.tensors:
            count = len(tensor.dims)
            yield pack_string(tensor.name) + struct.pack(f"<I{count}QIQ", count, *tensor.dims, tensor.type_id, offset)
            offset += padded(tensor.size, self.alignment)

    def write(self, path: Path) -> Path:
        """Write the file; tensors without content become a hole, so a 60 GB model costs the size of its header."""
        header = self.header()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(header)
            position = padded(len(header), self.alignment)
            for tensor in self.tensors:
                if tensor.content is not None:
                    file.seek(position)
                    file.write(tensor.content())
                position += padded(tensor.size, self.alignment)
            file.truncate(position)
        return path

    def bytes(self) -> bytes:
        """The file in memory: for small ones."""
        header = self.header()
        data = bytearray(padded(len(header), self.alignment))
        data[: len(header)] = header
        for tensor in self.tensors:
            content = tensor.content() if tensor.content is not None else b""
            data += content.ljust(padded(tensor.size, self.alignment), b"\0")
        return bytes(data)

    def parts(
        self, count: int | None = None, *, max_tensors: int = REFERENCE_TENSORS_PER_PART, tensor_first: bool = True
    ) -> list["GgufBuilder"]:
        """The parts of a split set in the layout of llama-gguf-split: all metadata in part 1, the others only `split.*`.

        `count` parts of about equal numbers of tensors, or else `max_tensors` per part. Without `tensor_first` part 1
        holds metadata alone.
        """
        slots = (count - (not tensor_first)) if count is not None else -(-len(self.tensors) // max_tensors)
        if slots < 1:
            raise ValueError("too few parts")
        each = -(-len(self.tensors) // slots) if count is not None else max_tensors
        groups = [self.tensors[n * each : (n + 1) * each] for n in range(slots)]
        if not tensor_first:
            groups.insert(0, [])
        parts: list[GgufBuilder] = []
        for number, group in enumerate(groups):
            part = GgufBuilder(None, version=self.version, tensors=list(group))
            if number == 0:
                part.alignment = self.alignment
                part.entries = [entry for entry in self.entries if not entry[0].startswith("split.")]
            part.number("split.no", number, Kind.U16).number("split.count", len(groups), Kind.U16)
            part.number("split.tensors.count", len(self.tensors), Kind.I32)
            parts.append(part)
        return parts

    def write_split(
        self,
        folder: Path,
        stem: str,
        count: int | None = None,
        *,
        max_tensors: int = REFERENCE_TENSORS_PER_PART,
        tensor_first: bool = True,
    ) -> list[Path]:
        """Write `parts` as `<stem>-00001-of-0000N.gguf`; returns the paths in order."""
        parts = self.parts(count, max_tensors=max_tensors, tensor_first=tensor_first)
        names = [f"{stem}-{number:05d}-of-{len(parts):05d}.gguf" for number in range(1, len(parts) + 1)]
        return [part.write(folder / name) for part, name in zip(parts, names, strict=True)]
