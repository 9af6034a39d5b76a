"""How grave a line of an engine's output is."""

import re
from collections.abc import Sequence
from enum import StrEnum


class Severity(StrEnum):
    """In rising order."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_LLAMA = re.compile(r"^(?:\d+\.)+\d+ ([DIWE]) ")
_LETTERS = {"D": Severity.DEBUG, "I": Severity.INFO, "W": Severity.WARNING, "E": Severity.ERROR}
_LEVEL = re.compile(r"(?:^|[\s\[(])(DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL|FATAL)(?=[\s\]):]|$)")
_LEVELS = {"DEBUG": Severity.DEBUG, "INFO": Severity.INFO, "WARN": Severity.WARNING, "WARNING": Severity.WARNING}
_PLAIN_ERROR = re.compile(
    r"^(?:error|fatal)\b|Traceback \(most recent call last\)|^\w*(?:Error|Exception)\b:", re.IGNORECASE
)
_PLAIN_WARNING = re.compile(r"^warning\b", re.IGNORECASE)


def severity(line: str, before: Severity = Severity.INFO) -> Severity:
    """By the engine's own mark. A line that goes on with the one before is as grave as that."""
    marked = _LLAMA.match(line)
    if marked:
        return _LETTERS[marked[1]]
    level = _LEVEL.search(line[:120])
    if level:
        return _LEVELS.get(level[1], Severity.ERROR)
    if _PLAIN_ERROR.search(line):
        return Severity.ERROR
    if _PLAIN_WARNING.search(line):
        return Severity.WARNING
    return before if line[:1].isspace() else Severity.INFO


def marked(lines: Sequence[str], before: Severity = Severity.INFO) -> list[tuple[str, Severity]]:
    """Each line with its severity."""
    made: list[tuple[str, Severity]] = []
    for line in lines:
        before = severity(line, before)
        made.append((line, before))
    return made
