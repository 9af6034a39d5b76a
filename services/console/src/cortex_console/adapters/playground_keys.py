"""Keys of the playground: an API key of the user's own, made with their session, alive for hours, known to this process alone."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cortex_console.adapters.admin_api import AdminApi
from cortex_console.domain.shapes import rows, text
from cortex_console.errors import ConsoleError

NAME = "Playground"
"""People find it in their list of keys by this name."""
LIFETIME = timedelta(hours=4)
_RENEW_BEFORE_S = 600.0
_KEPT = 3
"""Of one user, when a further one is made: browsers and restarts of the console leave them, and each counts as a key."""


@dataclass(frozen=True, slots=True)
class PlaygroundKey:
    """A key, and when another takes its place."""

    id: str
    secret: str = field(repr=False)
    made: float
    until: float


class PlaygroundKeys:
    """One key for each session that used the playground. A restart forgets them all: they expire."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._keys: dict[str, PlaygroundKey] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def key(self, api: AdminApi) -> PlaygroundKey:
        """The session's key, made if need be.

        Raises:
            ConsoleError: the registry lets the user have none: 403 `self_service_off`, 409 `too_many_keys`.
        """
        session = _session(api)
        async with self._locks.setdefault(session, asyncio.Lock()):
            known = self._keys.get(session)
            if known is None or known.until <= self._clock():
                self._forget_expired()
                known = self._keys[session] = await self._make(api)
        return known

    def drop(self, api: AdminApi, key: PlaygroundKey) -> None:
        """The gateway refuses it: the next question makes another one."""
        if self._keys.get(_session(api)) is key:
            del self._keys[_session(api)]

    async def end(self, api: AdminApi) -> None:
        """Revoke the session's key, as before it ends. What cannot be revoked now expires."""
        session = _session(api)
        known = self._keys.pop(session, None)
        self._locks.pop(session, None)
        if known is not None:
            await _revoke(api, known.id)

    async def _make(self, api: AdminApi) -> PlaygroundKey:
        for left in await self._left_behind(api):
            await _revoke(api, left)
        expires_at = (datetime.now(UTC) + LIFETIME).isoformat(timespec="seconds")
        made = await api.post("/me/keys", {"name": NAME, "expires_at": expires_at})
        now = self._clock()
        until = now + LIFETIME.total_seconds() - _RENEW_BEFORE_S
        return PlaygroundKey(text(made.get("id")), text(made.get("key")), now, until)

    async def _left_behind(self, api: AdminApi) -> list[str]:
        """The oldest ones, so that not more than a few count against what the user may have."""
        found = rows((await api.get("/me/keys", {"q": NAME, "state": "active", "limit": 100})).get("items"))
        mine = [text(key.get("id")) for key in found if key.get("name") == NAME]
        return mine[: max(0, len(mine) - _KEPT + 1)]

    def _forget_expired(self) -> None:
        now = self._clock()
        for session in [session for session, key in self._keys.items() if key.until <= now]:
            del self._keys[session]
            lock = self._locks.get(session)
            if lock is not None and not lock.locked():
                del self._locks[session]


async def _revoke(api: AdminApi, key_id: str) -> None:
    try:
        await api.delete(f"/me/keys/{key_id}")
    except ConsoleError:
        return  # it expires within hours anyway


def _session(api: AdminApi) -> str:
    return hashlib.sha256(api.secrets.session.encode()).hexdigest()
