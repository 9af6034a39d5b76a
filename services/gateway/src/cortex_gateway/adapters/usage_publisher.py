"""Moves usage records from the spool to the stream USAGE, in order, many to a message, as often as it takes."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Protocol

from cortex_contracts.envelope import BATCH_CONTENT_TYPE, join_batch
from cortex_contracts.events import UsageRecordedV1
from cortex_gateway import metrics
from cortex_gateway.adapters.usage_spool import Batch, UsageSpool
from cortex_gateway.domain.usage import envelope_id
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger

log = get_logger()


class Publish(Protocol):
    """Stores one message; raises TransientError when the store did not confirm."""

    async def __call__(
        self, subject: str, payload: bytes, event_id: str, *, content_type: str | None = None
    ) -> None: ...


MESSAGE_RECORDS = 64
MESSAGE_BYTES = 48 * 1024
"""Of the 64 KiB that the stream takes."""
MESSAGES_AT_ONCE = 8
GATHER_S = 0.05
"""How long a record may wait for others to share its message: a message costs as much as several requests."""
FULL_BATCH = 2 * MESSAGE_RECORDS
"""After so many records the next ones are not waited for."""
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
        self._unfinished: Batch | None = None

    async def run(self) -> None:
        """Publish until cancelled; a task of the service."""
        loop = asyncio.get_running_loop()
        adopt_at = loop.time() + ADOPT_EVERY_S
        sync_at = loop.time() + IDLE_S
        backoff_s = FIRST_BACKOFF_S
        while True:
            batch = self._unfinished or self._spool.next_batch()
            if batch is None:
                self._idle.set()
                await self._spool.wait_append(IDLE_S)
                await asyncio.sleep(GATHER_S)
            elif await self._publish_batch(batch):
                backoff_s = FIRST_BACKOFF_S
                if len(batch.records) < FULL_BATCH:
                    await asyncio.sleep(GATHER_S)
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
        """True when every record of the batch is stored. Otherwise the same messages are to be sent again: their ids
        are made of what they hold, so that the store knows those it has."""
        messages = list(split_messages(batch.records))
        for start in range(0, len(messages), MESSAGES_AT_ONCE):
            results = await asyncio.gather(
                *(self._publish_message(records) for records in messages[start : start + MESSAGES_AT_ONCE]),
                return_exceptions=True,
            )
            for result in results:
                if isinstance(result, TransientError):
                    self._unfinished = batch
                    self._note_failure(result)
                    return False
                if isinstance(result, BaseException):
                    raise result
        self._unfinished = None
        if self._failing:
            self._failing = False
            log.info("usage_publishing_resumed", pending_bytes=self._spool.pending_bytes)
        metrics.USAGE_RECORDS.labels("published").inc(len(batch.records))
        self._spool.acknowledge(batch)
        return True

    async def _publish_message(self, records: Sequence[bytes]) -> None:
        first = envelope_id(records[0]) or ""
        if len(records) == 1:
            await self._publish(UsageRecordedV1.SUBJECT, records[0], first)
            return
        message_id = f"{first}-{envelope_id(records[-1]) or ''}-{len(records)}"
        await self._publish(UsageRecordedV1.SUBJECT, join_batch(records), message_id, content_type=BATCH_CONTENT_TYPE)

    def _note_failure(self, error: TransientError) -> None:
        if not self._failing:
            self._failing = True
            log.warning("usage_publishing_failed", error=str(error), pending_bytes=self._spool.pending_bytes)


def split_messages(records: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Records in order, as many to a message as it may hold."""
    start = size = 0
    for index, record in enumerate(records):
        if index > start and (index - start >= MESSAGE_RECORDS or size + len(record) > MESSAGE_BYTES):
            yield records[start:index]
            start, size = index, 0
        size += len(record) + 1
    if start < len(records):
        yield records[start:]
