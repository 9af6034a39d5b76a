"""What goes wrong between the console and the services it asks."""

from collections.abc import Mapping
from dataclasses import dataclass

from cortex_kit.errors import CortexError, PermanentError

UNAVAILABLE = "registry_unavailable"
UNAUTHORIZED = "unauthorized"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a form."""

    field: str
    code: str
    message: str


class ConsoleError(CortexError):
    """A refusal of a service, or that it cannot be reached.

    Args:
        status: HTTP status; 0 when there was no answer.
        code: stable; pages branch on it.
        message: a sentence for people.
        fields: which fields are wrong.
        details: further members of the problem.
        retry_after_s: when to try again, where the service said so.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: tuple[FieldError, ...] = (),
        details: Mapping[str, object] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields
        self.details: Mapping[str, object] = details or {}
        self.retry_after_s = retry_after_s

    @property
    def is_signed_out(self) -> bool:
        """Whether the session has ended."""
        return self.status == 401 or self.code == "password_change_required"


class PinnedError(PermanentError):
    """The installed NiceGUI is not the one that the console was written for."""
