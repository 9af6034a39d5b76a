"""Reads which options a llama-server build accepts out of its `--help`.

Build numbers cannot be trusted (a source build may say 0), and an unknown option ends the engine: the list decides.
"""

import re

from cortex_orchestrator.domain.spec import Capabilities

_REMOVED = "argument has been removed"


def parse_help(text: str) -> Capabilities:
    """Options listed and still accepted. Options that are listed only to say that they are gone do not count."""
    accepted: set[str] = set()
    for entry in _entries(text):
        if _REMOVED not in " ".join(entry.split()):
            accepted |= _flags(entry.splitlines()[0])
    return Capabilities(frozenset(accepted))


def _entries(text: str) -> list[str]:
    """One text per option: the line that starts with it and the indented lines that follow."""
    entries: list[list[str]] = []
    for line in text.splitlines():
        if re.match(r"--?[A-Za-z]", line):
            entries.append([line])
        elif entries and line.startswith(" "):
            entries[-1].append(line)
    return ["\n".join(entry) for entry in entries]


def _flags(line: str) -> set[str]:
    """The option names at the start of a line; a gap of two spaces begins the description."""
    names = re.split(r"\s{2,}", re.sub(r",\s+", ", ", line), maxsplit=1)[0]
    words = [part.split()[0] for part in names.split(", ") if part.split()]
    return {word for word in words if word.startswith("-")}
