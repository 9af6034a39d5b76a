"""Ends a live log whose source does not say that it is over."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

CHECK_S = 2.0


async def until_ended(
    batches: AsyncGenerator[Sequence[str], None], over: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[Sequence[str], None]:
    """The batches, until they end or nothing has come for `CHECK_S` after `over` said so."""
    pending = asyncio.ensure_future(anext(batches, None))
    quiet_end = False
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=CHECK_S)
            if not done:
                if quiet_end:
                    return
                quiet_end = await over()
                continue
            batch = pending.result()
            if batch is None:
                return
            yield batch
            pending = asyncio.ensure_future(anext(batches, None))
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
