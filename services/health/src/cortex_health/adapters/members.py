"""Who shares the work: signs of life in the bucket `leases`, and the port `Shares` on top of them."""

import asyncio
import re
import secrets
from collections.abc import Callable, Mapping

from nats.errors import Error as NatsError
from nats.js.errors import APIError

from cortex_contracts.documents import LeaseDocumentV1
from cortex_contracts.streams import LEASES
from cortex_health.domain.ownership import Roster, goes_before, owner_of
from cortex_health.metrics import MEMBERS
from cortex_kit.bus import Bus
from cortex_kit.clock import Clock, next_version
from cortex_kit.errors import TransientError
from cortex_kit.kv import Change, KVView
from cortex_kit.logging import get_logger

log = get_logger()
PREFIX = "health-members."
TICK_S = 0.25
BEATS_PER_TTL = 3
PUBLISH_TIMEOUT_S = 2.0
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")


def member_name(instance: str) -> str:
    """A name of this process's own, even if two were given the same instance, and fit for a key."""
    return f"{_UNFIT.sub('-', instance)[:48]}-{secrets.token_hex(3)}"


class Members:
    """Says that this member is alive, hears the others, and answers what is whose.

    The store forgets a sign of life by itself; whoever listens does not wait for that, since an expiry is not told, and
    keeps the time itself.
    """

    def __init__(self, bus: Bus, clock: Clock, *, name: str, address: str, ttl_s: int) -> None:
        self.name = name
        self._bus = bus
        self._clock = clock
        self._address = address
        self._ttl_s = ttl_s
        self._view = KVView(bus, LEASES, LeaseDocumentV1)
        self._roster = Roster(name, float(ttl_s))
        self._members: frozenset[str] = frozenset()
        self._contested: dict[str, float] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._leaving = False
        self._version = 0
        self._view.on_change(self._on_change)

    @property
    def ready(self) -> bool:
        """True once the own sign of life came back through the store."""
        return self._roster.joined

    def readiness(self) -> str | None:
        """For /readyz."""
        return None if self.ready else "the other members are not known yet"

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back when a member came or went, or a contested key may be taken again."""
        self._callbacks.append(callback)

    def mine(self, key: str) -> bool:
        """See `ports.Shares`."""
        return owner_of(key, self._members) == self.name and key not in self._contested

    def contest(self, key: str, other: str) -> bool:
        """See `ports.Shares`. Both members compute the same answer."""
        if other == self.name or not goes_before(other, self.name, key):
            return False
        self._contested[key] = self._clock.monotonic() + self._ttl_s
        return True

    def addresses(self) -> Mapping[str, str]:
        """Where the metrics of each present member are, by its name."""
        items = self._view.items
        found = {name: items.get(PREFIX + name) for name in self._members}
        return {name: document.address for name, document in found.items() if document and document.address}

    async def follow(self) -> None:
        """Task: hear the others."""
        await self._view.run()

    async def run(self) -> None:
        """Task: say that we live, and keep the time of the others."""
        beat_at = 0.0
        while True:
            now = self._clock.monotonic()
            if now >= beat_at and self._bus.connected and not self._leaving:
                beat_at = now + self._ttl_s / BEATS_PER_TTL
                await self._beat()
            self._tick()
            await asyncio.sleep(TICK_S)

    async def leave(self) -> None:
        """Say that the others may take over at once; best effort."""
        self._leaving = True
        # The marker goes by itself, as the sign of life would have.
        await self._publish(b"", ttl_s=1, headers={"KV-Operation": "DEL"})

    async def _beat(self) -> None:
        self._version = next_version(self._version)
        document = LeaseDocumentV1(
            aggregateversion=self._version, holder=self.name, acquired_at=self._clock.now(), address=self._address
        )
        await self._publish(document.model_dump_json().encode(), ttl_s=self._ttl_s)

    async def _publish(self, payload: bytes, *, ttl_s: int, headers: dict[str, str] | None = None) -> None:
        subject = f"$KV.{LEASES.name}.{PREFIX}{self.name}"
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                await self._bus.js.publish(subject, payload, headers=headers, msg_ttl=float(ttl_s))
        except (NatsError, APIError, OSError, TimeoutError, TransientError) as error:
            log.debug("sign_of_life_failed", error=repr(error))

    def _on_change(self, change: Change[LeaseDocumentV1]) -> None:
        if not change.key.startswith(PREFIX):
            return
        name = change.key.removeprefix(PREFIX)
        if change.new is not None:
            self._roster = self._roster.hears(name, self._clock.monotonic())
        elif change.live:
            self._roster = self._roster.parts_with(name)
        self._renew()

    def _tick(self) -> None:
        now = self._clock.monotonic()
        self._roster = self._roster.ticks(now, audible=self._bus.connected)
        over = [key for key, until in self._contested.items() if now >= until]
        for key in over:
            del self._contested[key]
        self._renew(force=bool(over))

    def _renew(self, *, force: bool = False) -> None:
        members = self._roster.members
        if members == self._members and not force:
            return
        if members != self._members:
            log.info("members_changed", members=sorted(members), before=sorted(self._members))
        self._members = members
        MEMBERS.set(len(members))
        for callback in self._callbacks:
            callback()
