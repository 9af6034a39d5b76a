"""When this process looks for garbage that reference counts do not find."""

import asyncio
import gc
import time

from cortex_kit.logging import get_logger

log = get_logger()

THRESHOLDS = (10_000, 20, 20)
"""Objects made before a look, by generation. Requests leave next to no cycles behind, and with the 700 that Python begins with,
every few requests pay for a look at those that run at the same time."""
SETTLE_S = 5.0
"""After a reconnection, for the buckets to be read anew and the old watches to end."""


class GarbageCollection:
    """Looks through everything once NATS was away.

    Each watch of a bucket is a knot of tasks, queues and callbacks that refer to each other. With every reconnection all of
    them are replaced, and with so few looks the old ones would stay for hours. It takes a fraction of what reading the
    buckets anew just took.
    """

    def __init__(self, settle_s: float = SETTLE_S) -> None:
        self._settle_s = settle_s
        self._due = asyncio.Event()

    async def on_reconnect(self) -> None:
        """What was built for the last connection is of no use any more."""
        self._due.set()

    async def run(self) -> None:
        """A task of the service."""
        while True:
            await self._due.wait()
            await asyncio.sleep(self._settle_s)
            self._due.clear()
            began = time.perf_counter()
            found = gc.collect()
            log.debug("garbage_collected", objects=found, took_ms=round((time.perf_counter() - began) * 1e3, 1))


def begin() -> None:
    """What is there when a process begins stays: it is never looked at."""
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
