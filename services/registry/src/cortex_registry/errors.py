"""Failures of what the registry depends on, each with the stable code that a client sees."""

from cortex_kit.errors import PermanentError, TransientError


class UnavailableError(TransientError):
    """A dependency does not answer; the caller may try again. `code` is what the HTTP answer carries (503)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class DatabaseUnavailableError(UnavailableError):
    """Postgres is away, starting, overloaded or too slow."""

    def __init__(self, cause: BaseException | str) -> None:
        detail = cause if isinstance(cause, str) else type(cause).__name__
        super().__init__("database_unavailable", f"Postgres does not answer ({detail}). Try again in a moment.")


class SchemaError(PermanentError):
    """The database is not at the schema this version needs."""
