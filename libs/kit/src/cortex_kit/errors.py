"""The three kinds of failure that cross module borders."""

from collections.abc import Mapping


class CortexError(Exception):
    """Base of every error of ours."""


class DomainError(CortexError):
    """An expected refusal that the caller may see.

    Args:
        code: stable, lower_snake_case; clients branch on it.
        message: a sentence that says what is wrong and what to do next.
        status: HTTP status the edge answers with.
        details: further facts, JSON-serialisable, without secrets.
    """

    def __init__(
        self, code: str, message: str, *, status: int = 400, details: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.details: Mapping[str, object] = details or {}


class TransientError(CortexError):
    """Something is away for now: try again later."""


class PermanentError(CortexError):
    """Trying again can never help."""
