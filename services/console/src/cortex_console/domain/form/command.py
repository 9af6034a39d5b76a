"""A command line as people read it: an option and its value on a line."""

import shlex
from collections.abc import Sequence


def command_text(argv: Sequence[str]) -> str:
    """Ready to be pasted into a shell."""
    lines: list[str] = []
    for word in argv:
        quoted = word if word.startswith("<") and word.endswith(">") else shlex.quote(word)
        begins = not lines or (word.startswith("-") and not _is_number(word))
        if begins:
            lines.append(quoted)
        else:
            lines[-1] += f" {quoted}"
    return " \\\n  ".join(lines)


def _is_number(word: str) -> bool:
    return word[1:].replace(".", "", 1).isdecimal()
