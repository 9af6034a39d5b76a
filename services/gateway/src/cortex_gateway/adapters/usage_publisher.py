"""Moves usage records from the spool to the stream USAGE, in order, as often as it takes."""

import asyncio
from collections.abc import Awaitable, Callable

from cortex_contracts.events import UsageRecordedV1
from cortex_gateway import metrics
from cortex_gateway.adapters.usage_spool import Batch, UsageSpool
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger

log = get_logger()

Publish = Callable[[str, bytes, str], Awaitable[None]]
"""(subject, envelope, event id); raises TransientError when the store did not confirm."""

WINDOW = 64
IDLE_S = 1.0
ADOPT_EVERY_S = 30.0
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 5.0


class UsagePublisher:
    """Ids are fixed when a record is written, so publishing one again changes nothing."""

    def __init__(self, spool: UsageSpool, publish: Publish) -> None:
        self._spool = spool
        self._publish = publish
        self._failing = False
        self._idle = asyncio.Event()

    async def run(self) -> None:
        """Publish until cancelled; a task of the service."""
        loop = asyncio.get_running_loop()
        adopt_at = loop.time() + ADOPT_EVERY_S
        sync_at = loop.time() + IDLE_S
        backoff_s = FIRST_BACKOFF_S
        while True:
            batch = self._spool.next_batch()
            if batch is None:
                self._idle.set()
                await self._spool.wait_append(IDLE_S)
            elif await self._publish_batch(batch):
                backoff_s = FIRST_BACKOFF_S
            else:
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, LAST_BACKOFF_S)
            now = loop.time()
            if now >= sync_at:
                sync_at = now + IDLE_S
                await self._spool.sync()
                self._spool.tidy(idle=True)
            if now >= adopt_at:
                adopt_at = now + ADOPT_EVERY_S
                self._spool.adopt_orphans()

    async def flush(self, timeout_s: float) -> bool:
        """Wait until NATS has everything; False when that takes longer."""
        self._idle.clear()
        self._spool.nudge()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _publish_batch(self, batch: Batch) -> bool:
        """True when every record of the batch is stored."""
        for start in range(0, len(batch.records), WINDOW):
            window = batch.records[start : start + WINDOW]
            results = await asyncio.gather(
                *(self._publish(UsageRecordedV1.SUBJECT, record, record_id) for record_id, record in window),
                return_exceptions=True,
            )
            for result in results:
                if isinstance(result, TransientError):
                    self._note_failure(result)
                    return False
                if isinstance(result, BaseException):
                    raise result
        if self._failing:
            self._failing = False
            log.info("usage_publishing_resumed", pending_bytes=self._spool.pending_bytes)
        metrics.USAGE_RECORDS.labels("published").inc(len(batch.records))
        self._spool.acknowledge(batch)
        return True

    def _note_failure(self, error: TransientError) -> None:
        if not self._failing:
            self._failing = True
            log.warning("usage_publishing_failed", error=str(error), pending_bytes=self._spool.pending_bytes)
