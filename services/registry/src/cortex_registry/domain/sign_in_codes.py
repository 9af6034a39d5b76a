"""Codes that let a user sign in once without a password: a signed statement, of which nothing is stored.

A code names the version of the user that it was made for. Signing in by it makes a new version, so it works once; so does any
other change of the user, which ends all codes of before.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

LIFETIME_S = 600
_SHAPE = re.compile(r"([0-9a-f-]{36})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class SignInCode:
    """For whom, until when; `proof` is believed only after it was compared."""

    user_id: str
    expires: int
    proof: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for what is no code."""
        found = _SHAPE.fullmatch(text)
        return cls(found[1], int(found[2]), found[3]) if found else None

    def text(self) -> str:
        """As it stands in a link."""
        return f"{self.user_id}.{self.expires}.{self.proof}"

    def is_over(self, now: datetime) -> bool:
        """Whether it has expired."""
        return now >= datetime.fromtimestamp(self.expires, UTC)


def statement(user_id: str, version: int, expires: int) -> str:
    """What a code states."""
    return f"{user_id}/{version}/{expires}"
