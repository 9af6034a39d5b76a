"""Reads which options a build of an engine accepts out of its `--help`.

Build numbers cannot be trusted (a source build may say 0), and an unknown option ends the engine: the list decides.
The lists of llama-server and of vLLM (argparse) differ in their indentation only.
"""

import re

from cortex_orchestrator.domain.spec import Capabilities

_REMOVED = "argument has been removed"


def parse_help(text: str) -> Capabilities:
    """Options listed and still accepted. Options that are listed only to say that they are gone do not count."""
    accepted: set[str] = set()
    switches: set[str] = set()
    for entry in _entries(text):
        if _REMOVED in " ".join(entry.split()):
            continue
        flags, valued = _flags(entry.splitlines()[0].strip())
        accepted |= flags
        if not valued:
            switches |= flags
    return Capabilities(frozenset(accepted), frozenset(switches))


def _entries(text: str) -> list[str]:
    """One text per option: the line that starts with it and the deeper lines that follow."""
    entries: list[list[str]] = []
    for line in text.splitlines():
        if re.match(r" {0,2}--?[A-Za-z]", line):
            entries.append([line])
        elif entries and line.startswith("   "):
            entries[-1].append(line)
    return ["\n".join(entry) for entry in entries]


def _flags(line: str) -> tuple[set[str], bool]:
    """The option names at the start of a line, and whether a value follows; two spaces begin the description."""
    names = re.split(r"\s{2,}", re.sub(r",\s+", ", ", line), maxsplit=1)[0]
    parts = [part.split() for part in names.split(", ") if part.split()]
    flags = {words[0] for words in parts if words[0].startswith("-")}
    return flags, any(len(words) > 1 or not words[0].startswith("-") for words in parts)
