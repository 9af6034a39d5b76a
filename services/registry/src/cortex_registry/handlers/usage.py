"""Usage records: gathered for a moment, inserted together, acknowledged after the commit."""

import asyncio
from collections.abc import Sequence

from cortex_contracts.events import UsageRecordedV1
from cortex_kit.errors import PermanentError, TransientError
from cortex_kit.logging import get_logger
from cortex_registry import metrics
from cortex_registry.ports import UsageRepository

log = get_logger()
_Waiting = tuple[UsageRecordedV1, "asyncio.Future[None]"]


class UsageBatcher:
    """Joins records that arrive together into one insert. `run` must be running for `add` to return."""

    def __init__(self, repository: UsageRepository, *, batch_size: int, wait_s: float) -> None:
        self._repository = repository
        self._batch_size = batch_size
        self._wait_s = wait_s
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()

    async def add(self, record: UsageRecordedV1) -> None:
        """Return once the record is committed, now or before.

        Raises:
            TransientError: the database is away; nothing was stored.
            PermanentError: the database can never hold this record.
        """
        done = asyncio.get_running_loop().create_future()
        await self._queue.put((record, done))
        await done

    async def run(self) -> None:
        """A task of the service."""
        while True:
            batch = await self._next_batch()
            try:
                await self._store(batch)
            finally:
                _settle(batch, TransientError("the registry is stopping"))

    async def _next_batch(self) -> list[_Waiting]:
        batch = [await self._queue.get()]
        deadline = asyncio.get_running_loop().time() + self._wait_s
        while len(batch) < self._batch_size:
            try:
                async with asyncio.timeout_at(deadline):
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return batch

    async def _store(self, batch: Sequence[_Waiting]) -> None:
        try:
            inserted = await self._repository.insert([record for record, _ in batch])
        except TransientError as error:
            _settle(batch, error)
            return
        except PermanentError as error:
            if len(batch) == 1:
                _settle(batch, error)
                return
            # One record that can never be stored must not keep the others out.
            for one in batch:
                await self._store([one])
            return
        metrics.USAGE_INSERTED.inc(inserted)
        metrics.USAGE_REPEATED.inc(len(batch) - inserted)
        log.debug("usage_stored", received=len(batch), inserted=inserted)
        _settle(batch, None)


def _settle(batch: Sequence[_Waiting], error: Exception | None) -> None:
    """Answer those still waiting; one whose message was cancelled waits no more."""
    for _, done in batch:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
