"""One way for an engine to fail: how its log says so, what it means, and what to do."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """`message` and `fix` may name groups of the expression as {name}."""

    code: str
    expression: re.Pattern[str]
    message: str
    fix: str


def cause(code: str, expression: str, message: str, fix: str) -> Cause:
    return Cause(code, re.compile(expression, re.IGNORECASE), message, fix)
