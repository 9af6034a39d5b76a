"""Concurrent streams of one key, counted across gateways. Those of a gateway that dies are forgotten."""

from collections.abc import Callable

from cortex_gateway.domain import limits
from cortex_gateway.domain.limits import Limit, Standing
from cortex_gateway.ports import Counters
from cortex_gateway.shares import GRACE_S, Share
from cortex_kit.clock import Clock

EPOCH_S = 15
"""Streams are registered anew in each epoch, so that those of a gateway that died are forgotten."""
OVERLAP_S = 5.0
ASK_AGAIN_S = 0.05
"""A refused gateway looks this often whether a stream has ended."""
RETRY_S = 1.0
"""When a refused client is told to come back: nobody knows when a stream ends."""


class StreamShare(Share):
    """Streams at one time. A slot is counted in the epoch that runs, and towards its end in the next one, too."""

    def __init__(self, size: int, subject_of: Callable[[int], str], enqueue: Callable[[Share], None]) -> None:
        super().__init__(Limit.STREAMS, size, enqueue)
        self._subject_of = subject_of
        self._registered: dict[int, int] = {}
        self.in_use = 0

    def take(self, _units: int, now: float) -> bool:
        if self.held < 1:
            return False
        self.held -= 1
        self.in_use += 1
        self.last_used = now
        return True

    def take_locally(self, _units: int, now: float, gateways: int) -> bool:
        if self.take(1, now):
            return True
        if self.in_use >= limits.local_share(self.size, gateways):
            return False
        self.in_use += 1
        self.last_used = now
        return True

    @property
    def busy(self) -> bool:
        return self.queued or self.in_use > 0

    def undo(self, units: int, now: float) -> None:
        self.release()

    def give_back(self, keep: int) -> None:
        self.enqueue()

    def release(self) -> None:
        """A stream ended: its slot is free for every gateway."""
        self.in_use -= 1
        self._refused_until = 0.0
        self.enqueue()

    def resize(self, size: int) -> None:
        self.size = size
        self._refused_until = 0.0

    def idle(self, now: float) -> None:
        if self.in_use or self.held or any(self._registered.values()):
            self.enqueue()

    def forget_counter(self, now: float) -> None:
        self._registered.clear()
        self.local_until = now + GRACE_S
        if self.in_use:
            self.enqueue()

    def standing(self, _now: float, _month_left: float) -> Standing:
        return Standing(self.size, max(0, self.size - self.in_use), 1.0)

    async def work(self, counters: Counters, clock: Clock, gateways: int) -> None:
        now = clock.monotonic()
        epoch, position = divmod(clock.now().timestamp(), EPOCH_S)
        present = int(epoch)
        for old in [number for number in self._registered if number < present]:
            del self._registered[old]
        own, wanted, asked_for = self.in_use + self.held, self._wanted, len(self._waiting)
        value = await self._register(counters, present, own + wanted)
        if now < self.local_until:
            await self._register(counters, present, own)
            self.serve_locally(now, gateways)
            return
        got = limits.granted(value, wanted, self.size) if wanted else 0
        await self._register(counters, present, own + got)
        if position >= EPOCH_S - OVERLAP_S or present + 1 in self._registered:
            await self._register(counters, present + 1, own + got)
        self.held += got
        self.retry_at = now + RETRY_S
        self._serve(lambda units: self.take(units, now), now, ASK_AGAIN_S, asked_for)
        self.held = 0
        if self._registered.get(present) != self.in_use:
            self.enqueue()

    async def _register(self, counters: Counters, epoch: int, amount: int) -> int:
        """Make this gateway's part of an epoch's counter `amount`; returns the counter."""
        more = amount - self._registered.get(epoch, 0)
        if more == 0:
            return 0
        value = await counters.add(self._subject_of(epoch), more)
        self._registered[epoch] = amount
        return value
