"""What a merge will do, decided before a byte is written: which bytes of which part go where."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cortex_gguf_inspector.header import Header
from cortex_gguf_inspector.merge.layout import merged_header, padded


@dataclass(frozen=True, slots=True)
class Source:
    """One part as it was when the plan was made. `path` is below the models root."""

    path: str
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` bytes at `offset` of a source that go to `target` of the merged file."""

    source: int
    offset: int
    target: int
    length: int


@dataclass(frozen=True)
class MergePlan:
    """The whole merged file: `header`, then the pieces in the order of their targets, zeros between them."""

    sources: tuple[Source, ...]
    header: bytes
    pieces: tuple[Piece, ...]
    size: int
    layout: str
    parts: int

    @cached_property
    def digest(self) -> str:
        """Identifies the parts as they are and the file they make; a journal of another digest is worthless."""
        told = [[s.path, s.size, s.mtime_ns, s.inode] for s in self.sources]
        head = json.dumps([told, self.size, self.layout, len(self.pieces)]).encode()
        return hashlib.sha256(head + self.header).hexdigest()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a `-00001-of-00003` set: its checked header, and where it begins in its source (0 unless joined with cat)."""

    source: int
    base: int
    header: Header


def plan_split(sources: Sequence[Source], parts: Sequence[Part], first_header: bytes, layout: str) -> MergePlan:
    """Plan the merge of a checked, complete set."""
    alignment = parts[0].header.alignment
    tensors = [(part, tensor) for part in parts for tensor in part.header.tensors]
    header, offsets = merged_header(first_header, [tensor for _, tensor in tensors], alignment)
    pieces: list[Piece] = []
    end = len(header)
    for (part, tensor), offset in zip(tensors, offsets, strict=True):
        start = part.base + part.header.data_offset + tensor.offset
        _append(pieces, Piece(part.source, start, len(header) + offset, tensor.size))
        end = len(header) + offset + padded(tensor.size, alignment)
    return MergePlan(tuple(sources), header, tuple(pieces), end, layout, len(parts))


def plan_join(sources: Sequence[Source]) -> MergePlan:
    """Plan the concatenation of byte-wise parts."""
    pieces: list[Piece] = []
    end = 0
    for number, source in enumerate(sources):
        pieces.append(Piece(number, 0, end, source.size))
        end += source.size
    return MergePlan(tuple(sources), b"", tuple(pieces), end, "joined", len(sources))


def _append(pieces: list[Piece], piece: Piece) -> None:
    """Join a piece with the one before when both are neighbours in source and target: fewer, longer copies."""
    if not piece.length:
        return
    if pieces:
        last = pieces[-1]
        follows = last.source == piece.source and last.offset + last.length == piece.offset
        if follows and last.target + last.length == piece.target:
            pieces[-1] = Piece(last.source, last.offset, last.target, last.length + piece.length)
            return
    pieces.append(piece)
