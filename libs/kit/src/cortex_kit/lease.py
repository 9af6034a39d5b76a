"""Leases for work that one instance does at a time: a key with a time to live, its revision being the fencing token."""

import asyncio

from nats.errors import Error as NatsError
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError
from prometheus_client import Gauge
from pydantic import ValidationError

from cortex_contracts.documents import LeaseDocumentV1
from cortex_contracts.streams import LEASES
from cortex_kit.bus import API_TIMEOUT_S, Bus
from cortex_kit.clock import Clock, SystemClock
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger

log = get_logger()
WRONG_LAST_SEQUENCE = 10071
HELD = Gauge("cortex_lease_held", "1 while this instance holds the lease", ["lease"])


class Lease:
    """One holder at a time, as far as a store that may be restarted can tell.

    While NATS is away nobody can take the lease, so a holder keeps it until it learns that somebody else has it.
    Whoever writes under a lease stores `fence` with the write where a stale writer would do harm.
    """

    def __init__(self, bus: Bus, name: str, *, holder: str, ttl_s: int = 5, clock: Clock | None = None) -> None:
        self._bus = bus
        self._name = name
        self._holder = holder
        self._ttl_s = ttl_s
        self._clock = clock or SystemClock()
        self._held = asyncio.Event()
        self._revision: int | None = None

    @property
    def held(self) -> bool:
        return self._held.is_set()

    @property
    def fence(self) -> int | None:
        """KV revision of the last renewal; None when not held."""
        return self._revision if self.held else None

    async def wait_held(self) -> None:
        await self._held.wait()

    async def run(self) -> None:
        """Acquire, renew, acquire again; a task that ends by cancellation, and then releases."""
        try:
            while True:
                try:
                    async with asyncio.timeout(API_TIMEOUT_S):
                        await (self._renew() if self.held else self._acquire())
                except (NatsError, APIError, OSError, TimeoutError, TransientError) as error:
                    log.debug("lease_store_unreachable", lease=self._name, error=repr(error))
                await asyncio.sleep(self._ttl_s / 3)
        finally:
            await self.release()

    async def release(self) -> None:
        """Give the lease up at once, so that a successor need not wait; best effort."""
        if not self.held:
            return
        self._lose("released")
        try:
            kv = await self._bus.js.key_value(LEASES.name)
            async with asyncio.timeout(1):
                await kv.delete(self._name)
        except (NatsError, OSError, TimeoutError, TransientError):
            log.debug("lease_release_failed", lease=self._name)

    def _document(self) -> bytes:
        document = LeaseDocumentV1(holder=self._holder, acquired_at=self._clock.now(), aggregateversion=0)
        return document.model_dump_json().encode()

    async def _acquire(self) -> None:
        await self._bus.wait_provisioned(buckets=[LEASES])
        kv = await self._bus.js.key_value(LEASES.name)
        try:
            self._gain(await kv.create(self._name, self._document(), msg_ttl=self._ttl_s))
        except KeyWrongLastSequenceError:
            entry = await kv.get(self._name)
            if _holder(entry.value) == self._holder and entry.revision is not None:
                self._gain(entry.revision)  # left by an earlier life of this very instance
                await self._renew()

    async def _renew(self) -> None:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(self._revision)}
        try:
            ack = await self._bus.js.publish(
                f"$KV.{LEASES.name}.{self._name}", self._document(), headers=headers, msg_ttl=float(self._ttl_s)
            )
            self._revision = ack.seq
        except APIError as error:
            if error.err_code != WRONG_LAST_SEQUENCE:
                raise
            await self._resolve_conflict()

    async def _resolve_conflict(self) -> None:
        """Our revision is not the last one: an unconfirmed renewal of ours, an emptied store, or another holder."""
        kv = await self._bus.js.key_value(LEASES.name)
        try:
            entry = await kv.get(self._name)
        except KeyNotFoundError:
            try:
                self._revision = await kv.create(self._name, self._document(), msg_ttl=self._ttl_s)
            except KeyWrongLastSequenceError:
                self._lose("taken")
            return
        if _holder(entry.value) == self._holder:
            self._revision = entry.revision
        else:
            self._lose("taken")

    def _gain(self, revision: int) -> None:
        self._revision = revision
        self._held.set()
        HELD.labels(self._name).set(1)
        log.info("lease_acquired", lease=self._name, fence=revision)

    def _lose(self, reason: str) -> None:
        self._held.clear()
        self._revision = None
        HELD.labels(self._name).set(0)
        log.info("lease_lost", lease=self._name, reason=reason)


def _holder(value: bytes | None) -> str | None:
    try:
        return LeaseDocumentV1.model_validate_json(value or b"").holder
    except ValidationError:
        return None
