"""The guide: its few kinds of blocks, read from assets/guide.md, and what a search finds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_HEAD = re.compile(r"## ([a-z-]+) \| (.+)")
_STEP = re.compile(r"\d+\. ")
_INLINE = re.compile(r"`([^`]+)`|\[([^\]]+)\]\((/[^)]*)\)|\*\*([^*]+)\*\*|\*([^*]+)\*")


class Kind(StrEnum):
    """Of a block."""

    PARAGRAPH = "paragraph"
    LIST = "list"
    STEPS = "steps"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line: plain text, code, a link into the console, or an emphasis."""

    text: str
    style: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, a list of lines, or code."""

    kind: Kind
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One topic."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]

    def matches(self, wanted: str) -> bool:
        """Whether every word occurs, in the title or below it."""
        text = " ".join([self.title, *(line for block in self.blocks for line in block.lines)]).lower()
        return all(word in text for word in wanted.lower().split())


def sections(source: str) -> tuple[Section, ...]:
    """All of them, in order."""
    found: list[tuple[str, str, list[str]]] = []
    for line in source.splitlines():
        head = _HEAD.fullmatch(line)
        if head is not None:
            found.append((head[1], head[2], []))
        elif found:
            found[-1][2].append(line)
    return tuple(Section(anchor, title, _blocks(lines)) for anchor, title, lines in found)


def pieces(line: str) -> list[Piece]:
    """A line with its code, links and emphases."""
    found: list[Piece] = []
    end = 0
    for match in _INLINE.finditer(line):
        if match.start() > end:
            found.append(Piece(line[end : match.start()]))
        code, label, href, strong, weak = match.groups()
        if code:
            found.append(Piece(code, "code"))
        elif href:
            found.append(Piece(label, "link", href))
        else:
            found.append(Piece(strong or weak, "strong" if strong else "em"))
        end = match.end()
    if end < len(line):
        found.append(Piece(line[end:]))
    return found


def _blocks(lines: Sequence[str]) -> tuple[Block, ...]:
    made: list[tuple[Kind, list[str]]] = []
    fresh = True
    for line in lines:
        if not line.strip():
            fresh = True
            continue
        kind, text = _line(line)
        if fresh or not made or made[-1][0] is not kind:
            made.append((kind, []))
        made[-1][1].append(text)
        fresh = False
    return tuple(Block(kind, tuple(texts)) for kind, texts in made)


def _line(line: str) -> tuple[Kind, str]:
    if line.startswith("    "):
        return Kind.CODE, line[4:]
    if line.startswith("- "):
        return Kind.LIST, line[2:]
    step = _STEP.match(line)
    if step is not None:
        return Kind.STEPS, line[step.end() :]
    return Kind.PARAGRAPH, line
