"""Cuts an engine's output into lines, as it comes."""

import re

LINE_CHARACTERS = 16_384
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class LineSplitter:
    """Pieces in, whole lines out, without colours. A line that never ends is cut, so that memory stays bounded."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, piece: str) -> tuple[str, ...]:
        """The lines that this piece completes."""
        *whole, self._rest = (self._rest + piece).split("\n")
        while len(self._rest) > LINE_CHARACTERS:
            whole.append(self._rest[:LINE_CHARACTERS])
            self._rest = self._rest[LINE_CHARACTERS:]
        return tuple(clean(line) for line in whole)

    def flush(self) -> tuple[str, ...]:
        """What is left at the end."""
        rest, self._rest = self._rest, ""
        return (clean(rest),) if rest else ()


def clean(line: str) -> str:
    """Without colours and the white space at its end."""
    return _CONTROL.sub("", line).rstrip()
