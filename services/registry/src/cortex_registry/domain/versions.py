"""Versions that a writer expects: how a lost update is refused instead of overwritten."""

from typing import TypeAlias

from cortex_kit.errors import DomainError

Expected: TypeAlias = frozenset[int] | None
"""The versions that a writer would change; None: whichever there is."""


def require_version(expected: Expected, present: int) -> None:
    """Refuse a change of a version that its author has not seen.

    Call it with the version that was just read, and let the UPDATE ask for that same version (`WHERE id = $1 AND
    version = $2`). When the UPDATE finds no row, read again and call this again: without an expectation the change is
    then made on top of the other one, with one it is refused.

    Raises:
        DomainError: 412 `precondition_failed`, with the present version.
    """
    if expected is None or present in expected:
        return
    message = f"It was changed meanwhile: its version is {present}. Read it again and decide anew."
    raise DomainError("precondition_failed", message, status=412, details={"version": present})
