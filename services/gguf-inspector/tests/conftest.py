"""A small GGUF writer: valid files by default, and every way to break one."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

U8, U16, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 2, 4, 5, 6, 7, 8, 9, 10
FORMATS = {U8: "B", U16: "H", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q"}
BLOCKS = {0: (1, 4), 1: (1, 2), 3: (32, 20), 8: (32, 34), 12: (256, 144), 39: (32, 17)}


class GgufWriter:
    """Collects metadata and tensors; `bytes()` gives the file. Counts and pieces can be falsified."""

    def __init__(self, *, architecture: str | None = "llama", version: int = 3, order: str = "<") -> None:
        self.order = order
        self.version = version
        self.magic = b"GGUF"
        self.entry_count: int | None = None
        self.tensor_count: int | None = None
        self.alignment = 32
        self.missing_data = 0
        self._entries: list[bytes] = []
        self._tensors: list[tuple[bytes, tuple[int, ...], int, int | None]] = []
        if architecture is not None:
            self.text("general.architecture", architecture)

    def pack(self, letters: str, *values: object) -> bytes:
        return struct.pack(self.order + letters, *values)

    def string(self, value: str | bytes, length: int | None = None) -> bytes:
        raw = value.encode() if isinstance(value, str) else value
        return self.pack("Q", len(raw) if length is None else length) + raw

    def raw(self, entry: bytes) -> "GgufWriter":
        self._entries.append(entry)
        return self

    def text(self, key: str | bytes, value: str | bytes, length: int | None = None) -> "GgufWriter":
        return self.raw(self.string(key) + self.pack("I", STRING) + self.string(value, length))

    def number(self, key: str, value: float, kind: int = U32) -> "GgufWriter":
        return self.raw(self.string(key) + self.pack("I" + FORMATS[kind], kind, value))

    def array(self, key: str, kind: int, values: list[object], count: int | None = None) -> "GgufWriter":
        head = self.string(key) + self.pack("IIQ", ARRAY, kind, len(values) if count is None else count)
        if kind == STRING:
            return self.raw(head + b"".join(self.string(str(value)) for value in values))
        return self.raw(head + b"".join(self.pack(FORMATS.get(kind, "I"), value) for value in values))

    def tensor(
        self, name: str | bytes, dims: tuple[int, ...] = (32,), kind: int = 0, offset: int | None = None
    ) -> "GgufWriter":
        self._tensors.append((name.encode() if isinstance(name, str) else name, dims, kind, offset))
        return self

    def model(self) -> "GgufWriter":
        """Metadata and tensors of a small valid model."""
        self.text("general.name", "Tiny").number("general.file_type", 3).number("llama.context_length", 2048)
        self.number("llama.block_count", 2).number("llama.attention.head_count", 4)
        self.array("tokenizer.ggml.tokens", STRING, [f"token{n}" for n in range(100)])
        self.array("tokenizer.ggml.scores", F32, [0.5] * 100)
        self.text("tokenizer.chat_template", "{{ messages }}")
        return self.tensor("token_embd.weight", (64, 100), 3).tensor("output_norm.weight", (64,), 0)

    def header(self) -> bytes:
        entries = len(self._entries) if self.entry_count is None else self.entry_count
        tensors = len(self._tensors) if self.tensor_count is None else self.tensor_count
        head = self.magic + self.pack("I", self.version) + self.pack("qq", tensors, entries)
        return head + b"".join(self._entries) + self._tensor_infos()[0]

    def _tensor_infos(self) -> tuple[bytes, int]:
        infos, running = b"", 0
        for name, dims, kind, offset in self._tensors:
            infos += self.string(name) + self.pack(f"I{len(dims)}Q", len(dims), *dims)
            infos += self.pack("IQ", kind, running if offset is None else offset)
            running += self._padded(self._size(dims, kind))
        return infos, running

    def _size(self, dims: tuple[int, ...], kind: int) -> int:
        elements = 1
        for dim in dims:
            elements *= dim
        block, size = BLOCKS.get(kind, (1, 4))
        return elements // block * size

    def _padded(self, size: int) -> int:
        return -(-size // self.alignment) * self.alignment

    def bytes(self) -> bytes:
        header = self.header()
        data = min(self._tensor_infos()[1], 1 << 20)
        padding = self._padded(len(header)) - len(header)
        return header + b"\0" * padding + b"\0" * max(0, data - self.missing_data)

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.bytes())
        return path


@pytest.fixture
def writer() -> type[GgufWriter]:
    return GgufWriter


@pytest.fixture
def write_split() -> Callable[[Path, int], list[Path]]:
    """Writes a valid split set of N parts into a folder."""

    def write(folder: Path, count: int) -> list[Path]:
        paths: list[Path] = []
        for part in range(count):
            gguf = GgufWriter(architecture="llama" if part == 0 else None)
            gguf.number("split.no", part, U16).number("split.count", count, U16)
            gguf.number("split.tensors.count", count, I32)
            gguf.tensor(f"blk.{part}.weight", (32, 32), 8)
            paths.append(gguf.write(folder / f"big-{part + 1:05d}-of-{count:05d}.gguf"))
        return paths

    return write
