"""Breaks GGUF headers the way that finds bugs: at the fields that are lengths, counts, types and offsets."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from cortex_testing.gguf.writer import LETTERS, Kind

INTERESTING = (0, 1, 2, 7, 8, 9, 31, 32, 63, 64, 255, 256, 4096, 65535, 65536, 1 << 20, 1 << 30, 1 << 31, (1 << 32) - 1)
HUGE = (1 << 32, 1 << 40, 1 << 60, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 32)


@dataclass(frozen=True, slots=True)
class Seed:
    """A valid header, the size of its file, and where its numbers lie: (offset, width)."""

    head: bytes
    size: int
    fields: tuple[tuple[int, int], ...]


class _Walker:
    def __init__(self, head: bytes) -> None:
        self.head = head
        self.at = 4
        self.fields: list[tuple[int, int]] = []

    def number(self, width: int) -> int:
        self.fields.append((self.at, width))
        self.at += width
        return int.from_bytes(self.head[self.at - width : self.at], "little")

    def string(self) -> None:
        length = self.number(8)
        self.at += length

    def value(self, kind: int) -> None:
        if kind == Kind.STRING:
            self.string()
        elif kind == Kind.ARRAY:
            element, count = self.number(4), self.number(8)
            for index in range(count):
                if element == Kind.STRING:
                    self.string()
                elif index < 4:
                    self.value(element)
                else:
                    self.at += (count - index) * struct.calcsize(LETTERS[Kind(element)])
                    break
        else:
            self.number(struct.calcsize(LETTERS[Kind(kind)]))


def seed(head: bytes, size: int) -> Seed:
    """Find the fields of a valid header; `size` is that of the whole file."""
    walker = _Walker(head)
    walker.number(4)
    tensors, entries = walker.number(8), walker.number(8)
    for _ in range(entries):
        walker.string()
        walker.value(walker.number(4))
    for _ in range(tensors):
        walker.string()
        for _ in range(walker.number(4)):
            walker.number(8)
        walker.number(4)
        walker.number(8)
    return Seed(head, size, tuple(walker.fields))


def mutate(random: Random, seeds: Sequence[Seed]) -> tuple[bytes, int]:
    """A broken header and the size of its file; the rest of the file is to be zeros."""
    chosen = random.choice(seeds)
    data, size = bytearray(chosen.head), chosen.size
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        random.choice(MUTATIONS)(random, data, chosen)
        if random.random() < 0.05:
            data[random.randrange(len(data) + 1) :] = random.choice(seeds).head[random.randrange(4096) :]
    if random.random() < 0.15:
        size = random.choice((len(data), random.randrange(len(data) + 1), size - 1, size + 1))
    del data[size:]
    return bytes(data), size


def _set_field(random: Random, data: bytearray, chosen: Seed) -> None:
    offset, width = random.choice(chosen.fields)
    old = int.from_bytes(data[offset : offset + width], "little")
    new = random.choice((old + 1, old - 1, old * 2, old ^ (1 << random.randrange(8 * width)), *INTERESTING, *HUGE))
    data[offset : offset + width] = (new % (1 << 8 * width)).to_bytes(width, "little")


def _flip(random: Random, data: bytearray, chosen: Seed) -> None:
    for _ in range(random.randint(1, 8)):
        if data:
            data[random.randrange(len(data))] = random.randrange(256)


def _cut(random: Random, data: bytearray, chosen: Seed) -> None:
    start = random.randrange(len(data) + 1)
    del data[start : start + random.choice((1, 4, 8, 100))]


def _repeat(random: Random, data: bytearray, chosen: Seed) -> None:
    start = random.randrange(len(data) + 1)
    data[start:start] = data[start : start + random.choice((1, 4, 8, 24, 100, 1000))]


def _noise(random: Random, data: bytearray, chosen: Seed) -> None:
    start = random.randrange(len(data) + 1)
    data[start:start] = random.choice((b"\xff" * 8, b"\0" * 8, b"\0" * 64, random.randbytes(random.randint(1, 64))))


def _swap_fields(random: Random, data: bytearray, chosen: Seed) -> None:
    left, width = random.choice(chosen.fields)
    right = random.choice(chosen.fields)[0]
    data[left : left + width], data[right : right + width] = data[right : right + width], data[left : left + width]


Mutation = Callable[[Random, bytearray, Seed], None]
MUTATIONS: tuple[Mutation, ...] = (_set_field, _set_field, _set_field, _flip, _cut, _repeat, _noise, _swap_fields)
