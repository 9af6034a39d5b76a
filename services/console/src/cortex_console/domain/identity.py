"""Who is signed in, and what they may: the registry's words; the registry remains the judge."""

from dataclasses import dataclass
from typing import Self

from cortex_console.domain.shapes import Row, text
from cortex_contracts.rights import GRANTS, Right, Role

_WHO = {Role.VIEWER: "an account", Role.OPERATOR: "an operator or an administrator", Role.ADMIN: "an administrator"}


@dataclass(frozen=True, slots=True)
class Me:
    """Whoever signed in."""

    username: str
    role: str
    user_id: str | None
    must_change_password: bool
    rights: frozenset[str]

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read the answer of `/admin/auth/me`."""
        return cls(
            username=text(answer.get("username")),
            role=text(answer.get("role")),
            user_id=answer.get("user_id"),
            must_change_password=bool(answer.get("must_change_password")),
            rights=frozenset(str(right) for right in answer.get("rights") or ()),
        )

    def may(self, right: Right) -> bool:
        """Whether buttons that need the right are offered."""
        return right.value in self.rights

    def why_not(self, right: Right) -> str | None:
        """Why a button is disabled; None when it is not."""
        if self.may(right):
            return None
        return f"Signed in as {self.role}. This takes {_WHO[GRANTS[right]]}."
