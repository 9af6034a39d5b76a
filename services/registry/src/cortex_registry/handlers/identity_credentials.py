"""Who a session cookie or a personal token belongs to, remembered for a moment."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cortex_kit.clock import Clock
from cortex_registry.domain.identity import Identity
from cortex_registry.domain.passwords import secret_digest
from cortex_registry.domain.sessions import (
    TOUCH_S,
    AdminToken,
    Lifetimes,
    Session,
    is_due,
    session_identity,
    session_is_live,
    token_identity,
    token_is_live,
)
from cortex_registry.domain.users import User
from cortex_registry.handlers.identity_ports import Sessions, Tokens

MAX_REMEMBERED = 10_000

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The user of a session, and what a request that changes something must show."""

    identity: Identity
    csrf_digest: str


class _Remembered(Generic[Found]):
    """Answers by digest, for `seconds`. One query at a time per digest; what is not found is never remembered."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._known: OrderedDict[str, tuple[float, Found]] = OrderedDict()
        self._asking: dict[str, asyncio.Lock] = {}
        self._generation = 0

    def forget(self) -> None:
        """Ask anew from now on; what is being asked at this moment is not remembered either."""
        self._generation += 1
        self._known.clear()

    async def get(self, digest: str, ask: Callable[[str], Awaitable[Found | None]]) -> Found | None:
        if (known := self._fresh(digest)) is not None:
            return known
        lock = self._asking.setdefault(digest, asyncio.Lock())
        try:
            async with lock:
                if (known := self._fresh(digest)) is not None:
                    return known
                return await self._ask(digest, ask)
        finally:
            if not lock.locked():
                self._asking.pop(digest, None)

    async def _ask(self, digest: str, ask: Callable[[str], Awaitable[Found | None]]) -> Found | None:
        # The answer is as old as the question.
        generation, asked_at = self._generation, self._clock.monotonic()
        found = await ask(digest)
        if found is not None and generation == self._generation:
            self._known[digest] = (asked_at, found)
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _fresh(self, digest: str) -> Found | None:
        entry = self._known.get(digest)
        if entry is None:
            return None
        if self._clock.monotonic() - entry[0] < self._seconds:
            return entry[1]
        del self._known[digest]
        return None


class Credentials:
    """Finds out who a secret belongs to.

    Another registry's revocation is noticed at most `remember_s` later, this one's own at once. Raises
    DatabaseUnavailableError when a secret is not remembered and the database is away.
    """

    def __init__(
        self, sessions: Sessions, tokens: Tokens, *, lifetimes: Lifetimes, clock: Clock, remember_s: float
    ) -> None:
        self._sessions = sessions
        self._tokens = tokens
        self._lifetimes = lifetimes
        self._clock = clock
        self._known_sessions: _Remembered[tuple[Session, User]] = _Remembered(clock, remember_s)
        self._known_tokens: _Remembered[tuple[AdminToken, User]] = _Remembered(clock, remember_s)

    def forget(self) -> None:
        """Ask the database anew."""
        self._known_sessions.forget()
        self._known_tokens.forget()

    async def session(self, secret: str) -> SignedIn | None:
        """Whose session it is, while it lasts and its user is not disabled."""
        found = await self._known_sessions.get(secret_digest(secret), self._find_session)
        if found is None or not session_is_live(found[0], self._lifetimes, self._clock.now()):
            return None
        identity = session_identity(found[1])
        return SignedIn(identity, found[0].csrf_digest) if identity is not None else None

    async def token(self, secret: str) -> Identity | None:
        """Who may act by the token, with what they may do now."""
        found = await self._known_tokens.get(secret_digest(secret), self._find_token)
        if found is None or not token_is_live(found[0], self._clock.now()):
            return None
        return token_identity(found[1], found[0])

    async def _find_session(self, digest: str) -> tuple[Session, User] | None:
        found = await self._sessions.find(digest)
        now = self._clock.now()
        if found is None or not session_is_live(found[0], self._lifetimes, now):
            return None
        if is_due(found[0].last_seen_at, self._lifetimes.touch_s, now):
            await self._sessions.touch(digest, now)
        return found

    async def _find_token(self, digest: str) -> tuple[AdminToken, User] | None:
        found = await self._tokens.find(digest)
        now = self._clock.now()
        if found is not None and token_is_live(found[0], now) and is_due(found[0].last_used_at, TOUCH_S, now):
            await self._tokens.touch(found[0].id, now)
        return found
