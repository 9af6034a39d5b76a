"""The outbox relay: the one writer of the buckets `models` and `keys`, and of the registry's events.

Postgres decides who relays: the session that holds the lock also runs every statement, so a relay that lost its
session stops at its next read. A KV document is made from the present row, never from an old line, so writing it twice
or late is harmless; an event carries its own id, so publishing it twice stores it once.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from cortex_kit.clock import Clock
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger
from cortex_registry import metrics
from cortex_registry.domain.outbox import MIRRORED, Aggregate, OutboxLine, plan_mirror
from cortex_registry.errors import DatabaseUnavailableError
from cortex_registry.ports import EventSink, Mirror, OutboxSession, OutboxSource, Provisioning

log = get_logger()
LOCK_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class RelayTiming:
    """How often, how much, how patiently."""

    poll_s: float = 1.0
    batch_size: int = 100
    resync_s: float = 300.0
    retry_max_s: float = 5.0


class Relay:
    """Publishes committed changes in order. Run one per instance; one of them at a time is active."""

    def __init__(
        self,
        source: OutboxSource,
        mirror: Mirror,
        events: EventSink,
        provisioning: Provisioning,
        *,
        clock: Clock,
        timing: RelayTiming | None = None,
    ) -> None:
        self._source = source
        self._mirror = mirror
        self._events = events
        self._provisioning = provisioning
        self._clock = clock
        self._timing = timing or RelayTiming()
        self._failures = 0

    async def run(self) -> None:
        """A task of the service."""
        attempt = 0
        while True:
            try:
                async with self._source.open() as session:
                    attempt = 0
                    await self._serve(session)
            except DatabaseUnavailableError as error:
                if attempt == 0:
                    log.info("relay_without_database", reason=error.message)
            finally:
                metrics.RELAY_LEADER.set(0)
                metrics.OUTBOX_ROWS.set(0)
                metrics.OUTBOX_AGE.set(0)
            await asyncio.sleep(min(self._timing.poll_s, 0.05 * 2 ** min(attempt, 10)) * random.uniform(0.5, 1.0))
            attempt += 1

    async def _serve(self, session: OutboxSession) -> None:
        while not await session.lead():
            await session.wait(LOCK_POLL_S)
        metrics.RELAY_LEADER.set(1)
        log.info("relay_leading")
        mirrored = _Mirrored()
        while True:
            _raise_if_cancelled()
            try:
                await self._step(session, mirrored)
                self._failures = 0
            except DatabaseUnavailableError:
                raise
            except TransientError as error:
                await self._back_off(session, error)

    async def _step(self, session: OutboxSession, mirrored: "_Mirrored") -> None:
        """Make the buckets right when they may not be, then publish a batch, or wait for one."""
        await self._measure(session)
        if self._provisioning.generation == 0:
            await session.wait(self._timing.poll_s)
            return
        reason = mirrored.stale(self._provisioning.generation, self._clock.monotonic(), self._timing.resync_s)
        if reason is not None:
            generation = self._provisioning.generation
            await self._republish(session, reason)
            mirrored.done(generation, self._clock.monotonic())
        lines = await session.pending(self._timing.batch_size)
        if lines:
            await self._publish(session, lines)
        else:
            await session.wait(self._timing.poll_s)

    async def _measure(self, session: OutboxSession) -> None:
        backlog = await session.backlog()
        metrics.OUTBOX_ROWS.set(backlog.rows)
        metrics.OUTBOX_AGE.set(backlog.age_s)

    async def _back_off(self, session: OutboxSession, error: TransientError) -> None:
        if self._failures == 0:
            log.warning("relay_waits", reason=str(error))
        delay = min(self._timing.retry_max_s, 0.1 * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1.0)
        self._failures += 1
        await asyncio.sleep(delay)
        await self._measure(session)

    async def _publish(self, session: OutboxSession, lines: Sequence[OutboxLine]) -> None:
        """KV first, then the events in order: who reads KV upon an event finds what it tells of."""
        for aggregate in MIRRORED:
            ids = list(dict.fromkeys(line.aggregate_id for line in lines if line.aggregate is aggregate))
            if ids:
                await self._write_documents(session, aggregate, ids)
        confirmed: list[OutboxLine] = []
        try:
            for line in lines:
                await self._events.publish(line)
                metrics.RELAYED.labels(line.event.SUBJECT).inc()
                confirmed.append(line)
        finally:
            if confirmed:
                await session.settle(confirmed)

    async def _write_documents(self, session: OutboxSession, aggregate: Aggregate, ids: Sequence[str]) -> None:
        documents = await session.documents(aggregate, ids)
        for key in ids:
            document = documents.get(key)
            if document is None:
                await self._delete(aggregate, key)
            else:
                await self._mirror.put(aggregate, key, document)
                metrics.MIRROR_WRITES.labels(aggregate.value, "put").inc()

    async def _delete(self, aggregate: Aggregate, key: str) -> None:
        await self._mirror.delete(aggregate, key)
        metrics.MIRROR_WRITES.labels(aggregate.value, "delete").inc()

    async def _republish(self, session: OutboxSession, reason: str) -> None:
        """Make both buckets equal to Postgres, whatever they held."""
        for aggregate in MIRRORED:
            stored = await self._mirror.stored(aggregate)
            plan = plan_mirror(await session.documents(aggregate), stored)
            for key, version in plan.ahead.items():
                log.warning("stored_version_ahead", aggregate=aggregate.value, key=key, version=version)
                await session.raise_version(aggregate, key, version)
            for key in plan.deletes:
                await self._delete(aggregate, key)
            changed = [*plan.puts, *plan.ahead]
            if changed:
                await self._write_documents(session, aggregate, changed)
            if changed or plan.deletes:
                log.info(
                    "republished",
                    aggregate=aggregate.value,
                    reason=reason,
                    puts=len(changed),
                    deletes=len(plan.deletes),
                )
        metrics.REPUBLISHED.labels(reason).inc()


def _raise_if_cancelled() -> None:
    """nats-py waits with asyncio.wait_for, which on Python 3.11 can swallow a cancellation (CPython issue 86296)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class _Mirrored:
    """When the buckets were last made equal to Postgres, under one leadership."""

    def __init__(self) -> None:
        self._generation = 0
        self._at = 0.0

    def stale(self, generation: int, now: float, resync_s: float) -> str | None:
        """Why they must be compared now, or None."""
        if self._generation == 0:
            return "lead"
        if generation != self._generation:
            return "reconnect"
        return "resync" if now - self._at >= resync_s else None

    def done(self, generation: int, now: float) -> None:
        """Remember a comparison made for `generation`."""
        self._generation = generation
        self._at = now
