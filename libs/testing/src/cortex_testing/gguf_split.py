"""Splits a GGUF file as the reference tool (`llama-gguf-split --split`) does; shares no code with what it tests."""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class SplitTensor:
    """One tensor: the raw bytes of its info without the offset, and its data."""

    name: str
    info: bytes
    start: int
    end: int


class GgufFile:
    """The raw pieces of a valid, little-endian file that does not announce an alignment of its own."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, self.version, tensors, entries = struct.unpack_from("<4sIQQ", self.data)
        assert magic == b"GGUF"
        self._position = 24
        self.entries = dict(self._entry() for _ in range(entries))
        infos = [self._info() for _ in range(tensors)]
        base = -(-self._position // _ALIGNMENT) * _ALIGNMENT
        ends = [offset for _, _, offset in infos[1:]] + [len(self.data) - base]
        self.tensors = [
            SplitTensor(name, info, base + offset, base + end)
            for (name, info, offset), end in zip(infos, ends, strict=True)
        ]

    def tensor_data(self) -> dict[str, bytes]:
        """Name -> data, with the padding behind it."""
        return {tensor.name: self.data[tensor.start : tensor.end] for tensor in self.tensors}

    def _number(self, layout: str) -> int:
        (value,) = struct.unpack_from(f"<{layout}", self.data, self._position)
        self._position += struct.calcsize(layout)
        return value

    def _string(self) -> bytes:
        length = self._number("Q")
        self._position += length
        return self.data[self._position - length : self._position]

    def _entry(self) -> tuple[str, bytes]:
        start = self._position
        key = self._string().decode()
        kind, count = self._number("I"), 1
        if kind == _ARRAY:
            kind, count = self._number("I"), self._number("Q")
        if kind == _STRING:
            for _ in range(count):
                self._string()
        else:
            self._position += count * _SIZES[kind]
        return key, self.data[start : self._position]

    def _info(self) -> tuple[str, bytes, int]:
        start = self._position
        name = self._string().decode()
        dimensions = self._number("I")
        self._position += 8 * dimensions + 4
        info = self.data[start : self._position]
        return name, info, self._number("Q")


def split_gguf(
    path: Path, folder: Path, count: int, *, prefix: str = "model", metadata_first: bool = False
) -> list[Path]:
    """Write `count` parts `<prefix>-00001-of-0000N.gguf`; returns their paths.

    Args:
        metadata_first: part 1 holds no tensors (`--no-tensor-first-split`).
    """
    whole = GgufFile(path)
    groups = count - 1 if metadata_first else count
    step = -(-len(whole.tensors) // groups)
    shares = [whole.tensors[n * step : (n + 1) * step] for n in range(groups)]
    if metadata_first:
        shares.insert(0, [])
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for number, share in enumerate(shares):
        entries = list(whole.entries.values()) if number == 0 else []
        entries += [_entry("split.no", 2, "H", number), _entry("split.tensors.count", 5, "i", len(whole.tensors))]
        entries.append(_entry("split.count", 2, "H", count))
        target = folder / f"{prefix}-{number + 1:05d}-of-{count:05d}.gguf"
        _write(target, whole, entries, share)
        paths.append(target)
    return paths


def _entry(key: str, kind: int, layout: str, value: int) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack(f"<I{layout}", kind, value)


def _write(target: Path, whole: GgufFile, entries: list[bytes], tensors: list[SplitTensor]) -> None:
    infos, offset = b"", 0
    for tensor in tensors:
        infos += tensor.info + struct.pack("<Q", offset)
        offset += tensor.end - tensor.start
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(entries)) + b"".join(entries) + infos
    with target.open("wb") as file:
        file.write(head.ljust(-(-len(head) // _ALIGNMENT) * _ALIGNMENT, b"\0"))
        for tensor in tensors:
            file.write(whole.data[tensor.start : tensor.end])
