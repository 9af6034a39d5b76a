"""A question that is asked anew whenever something is typed, and whose last answer alone counts."""

import asyncio
from collections.abc import Awaitable, Callable


class Latest:
    """Asks once at a time. Whoever calls it waits for an answer that was asked for after the call."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self._wanted = False
        self._asking = asyncio.Lock()

    async def __call__(self) -> None:
        """Raises what `ask` raises."""
        self._wanted = True
        async with self._asking:
            while self._wanted:
                self._wanted = False
                await self._ask()
