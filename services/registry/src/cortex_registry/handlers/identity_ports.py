"""What identity needs of the world, in its own words. Every method raises DatabaseUnavailableError when it is away."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cortex_contracts.rights import Role
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.sessions import AdminToken, Session
from cortex_registry.domain.throttle import ThrottlePolicy
from cortex_registry.domain.users import Org, User
from cortex_registry.ports import Act


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which users to list. `query` is part of a user or display name."""

    query: str | None = None
    role: Role | None = None
    org_id: str | None = None
    disabled: bool | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a list, oldest first: what follows the id `after`."""

    limit: int = 100
    after: str | None = None


@dataclass(frozen=True, slots=True)
class UserFacts:
    """What a decision about a user takes into account, read under the lock that the change is made under."""

    user: User
    password_hash: str | None
    other_admins: int
    live_keys: int


@dataclass(frozen=True, slots=True)
class UserChange:
    """What becomes of a user. `user` equal to the one that was read: nothing is written."""

    user: User
    act: Act
    password_hash: str | None = None
    """None: stays as it is."""
    ends_sessions: bool = False


class Users(Protocol):
    """Users. All changes are made one after the other, so that the last administrator stays."""

    async def page(self, wanted: UserFilter, page: Page) -> Sequence[User]: ...

    async def find(self, user_id: str) -> User | None: ...

    async def find_many(self, ids: Sequence[str]) -> Sequence[User]: ...

    async def add(self, user: User, password_hash: str, act: Act) -> None:
        """Row, audit and outbox line, or nothing.

        Raises:
            DomainError: 409 `username_taken`, 422 `org_not_found`.
        """
        ...

    async def add_owner(self, org: Org, acts: tuple[Act, Act], user: User, password_hash: str) -> Org:
        """The first administrator, and the organisation unless one of that name is there, which is returned.

        Raises:
            DomainError: 409 `owner_exists`, `username_taken`.
        """
        ...

    async def change(self, user_id: str, decide: Callable[[UserFacts], UserChange]) -> User | None:
        """Read, decide, write as one; None when there is no such user.

        Raises:
            DomainError: what `decide` raises, and as `add`.
        """
        ...

    async def remove(self, user_id: str, decide: Callable[[UserFacts], Act]) -> bool:
        """Delete unless `decide` raises; False when there is no such user."""
        ...


class Orgs(Protocol):
    """Organisations."""

    async def page(self, query: str | None, page: Page) -> Sequence[Org]: ...

    async def find(self, org_id: str) -> Org | None: ...

    async def find_many(self, ids: Sequence[str]) -> Sequence[Org]: ...

    async def add(self, org: Org, act: Act) -> None:
        """Raises DomainError 409 `org_name_taken`."""
        ...

    async def change(self, org_id: str, decide: Callable[[Org], tuple[Org, Act]]) -> Org | None:
        """As Users.change; raises DomainError 409 `org_name_taken`."""
        ...

    async def remove(self, org_id: str, decide: Callable[[Org, int, int], Act]) -> bool:
        """Delete unless `decide`, which is told how many users and live keys belong to it, raises."""
        ...


@dataclass(frozen=True, slots=True)
class SignInFacts:
    """Who wants to sign in, and what their password must match; for an unknown name all is None."""

    user: User | None
    password_hash: str | None


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session to store, under the digest of its secret."""

    session: Session
    digest: str


class Sessions(Protocol):
    """Browser sessions."""

    async def find(self, digest: str) -> tuple[Session, User] | None: ...

    async def of_user(self, user_id: str) -> Sequence[Session]:
        """Newest first."""
        ...

    async def open(self, new: NewSession, caller: Caller) -> bool:
        """Store it with the sign-in's audit entry; False when the user is gone or disabled meanwhile."""
        ...

    async def rotate(self, old_digest: str, new: NewSession) -> bool:
        """Put the new one in the place of an old one."""
        ...

    async def touch(self, digest: str, now: datetime) -> None:
        """Remember the use."""
        ...

    async def end(self, digest: str, caller: Caller) -> bool:
        """End the session of that secret, with an audit entry."""
        ...

    async def end_by_id(self, user_id: str, session_id: str, caller: Caller) -> bool:
        """End one of a user's sessions, with an audit entry."""
        ...

    async def end_others(self, user_id: str, kept_digest: str | None, caller: Caller) -> int:
        """End all of a user's sessions but one, with an audit entry; how many."""
        ...


class SignIns(Protocol):
    """The memory of attempts to sign in."""

    async def admit(self, subjects: Sequence[tuple[str, ThrottlePolicy]], username: str, now: datetime) -> SignInFacts:
        """Count an attempt under every subject, and read who wants to sign in.

        Raises:
            DomainError: 429 `too_many_attempts` with `retry_after_s`, when any subject is blocked; nothing is counted.
        """
        ...

    async def forgive(self, forgotten: str, returned: str) -> None:
        """The attempt was right: forget the failures of the one subject, give the other its attempt back."""
        ...

    async def rehash(self, user_id: str, known: str, new: str) -> None:
        """Replace a hash by one of the same password, unless it was changed meanwhile."""
        ...

    async def note_failure(self, username: str, caller: Caller) -> None:
        """An audit entry of a failed attempt."""
        ...

    async def sweep(self, now: datetime, *, older_than_s: float, at_most: int) -> None:
        """Forget old attempts, the oldest beyond `at_most`, and sessions that are over."""
        ...


class Tokens(Protocol):
    """Personal tokens."""

    async def find(self, digest: str) -> tuple[AdminToken, User] | None: ...

    async def of_user(self, user_id: str) -> Sequence[AdminToken]:
        """Oldest first, without those revoked."""
        ...

    async def add(self, token: AdminToken, digest: str, caller: Caller, *, at_most: int) -> None:
        """Raises DomainError 409 `too_many_tokens`."""
        ...

    async def revoke(self, user_id: str, token_id: str, now: datetime, caller: Caller) -> AdminToken | None:
        """Once and for ever; None when the user has no such token."""
        ...

    async def touch(self, token_id: str, now: datetime) -> None:
        """Remember the use."""
        ...


class Passwords(Protocol):
    """Slow hashes. Every method raises UnavailableError `sign_in_busy` when too many wait."""

    async def hash(self, password: str) -> str:
        """The password's hash in PHC format."""
        ...

    async def verify(self, password: str, known: str | None) -> bool:
        """Whether it is the password; takes as long when nothing is known, and is then False."""
        ...

    def is_outdated(self, known: str) -> bool:
        """Whether a hash was made with other parameters than today's."""
        ...
