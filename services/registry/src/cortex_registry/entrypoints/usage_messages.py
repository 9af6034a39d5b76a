"""Usage messages: one record or a batch. What cannot be stored goes to the dead letters alone, never with the others."""

import asyncio
from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from cortex_contracts.envelope import Envelope, split_batch
from cortex_contracts.events import UsageRecordedV1
from cortex_kit.errors import PermanentError
from cortex_registry.handlers.usage import UsageBatcher

_Record = Envelope[UsageRecordedV1]
Bury = Callable[[bytes, int, Exception], Awaitable[None]]
"""(envelope, its place in the message, what is wrong with it)"""


async def store_message(raw: bytes, batcher: UsageBatcher, bury: Bury) -> None:
    """Return once every record of the message is committed or buried.

    Raises:
        TransientError: some may not be stored: the message is to be delivered again, which changes nothing for those
            that are.
        PermanentError, pydantic.ValidationError: the message as a whole is of no use.
    """
    try:
        parts = split_batch(raw)
    except ValueError as error:
        raise PermanentError(f"a batch of usage records cannot be read: {error}") from error
    if len(parts) == 1 and parts[0] is raw:
        await batcher.add(_Record.model_validate_json(raw).data)
        return
    results = await asyncio.gather(*(_store(part, batcher) for part in parts), return_exceptions=True)
    transient: BaseException | None = None
    for index, result in enumerate(results):
        if isinstance(result, (ValidationError, PermanentError)):
            await bury(parts[index], index, result)
        elif result is not None:
            transient = result
    if transient is not None:
        raise transient


async def _store(part: bytes, batcher: UsageBatcher) -> None:
    await batcher.add(_Record.model_validate_json(part).data)
