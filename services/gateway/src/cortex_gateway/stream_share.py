"""Concurrent streams of one key, counted across gateways. Those of a gateway that dies are forgotten."""

from collections.abc import Callable

from cortex_gateway.domain import limits
from cortex_gateway.domain.limits import Limit, Standing
from cortex_gateway.ports import Counters
from cortex_gateway.shares import GRACE_S, IDLE_S, Share
from cortex_kit.clock import Clock

EPOCH_S = 15
"""Streams are registered anew in each epoch, so that those of a gateway that died are forgotten."""
OVERLAP_S = 5.0
ASK_AGAIN_S = 0.05
"""A refused gateway looks this often whether a stream has ended."""
SPARE_PART = 40
"""A gateway keeps at most this part of the slots in hand for streams to come; a small limit is not shared out ahead."""
RETRY_S = 1.0
"""When a refused client is told to come back: nobody knows when a stream ends."""


class StreamShare(Share):
    """Streams at one time. A slot is counted in the epoch that runs, and towards its end in the next one, too."""

    def __init__(self, size: int, subject_of: Callable[[int], str], enqueue: Callable[[Share], None]) -> None:
        super().__init__(Limit.STREAMS, size, enqueue)
        self._subject_of = subject_of
        self._registered: dict[int, int] = {}
        self._slots = 0
        """What this gateway may use: its part of the counter."""
        self._free = 0
        """Slots that nobody had at the last look."""
        self.in_use = 0

    @property
    def busy(self) -> bool:
        return self.queued or self.in_use > 0

    def ready(self, units: int) -> bool:
        return self.in_use < self._slots and not self._waiting

    def take(self, units: int, now: float) -> bool:
        if self.in_use >= self._slots:
            return False
        self.in_use += 1
        self.last_used = now
        return True

    def take_locally(self, units: int, now: float, gateways: int) -> bool:
        if self.take(units, now):
            return True
        if self.in_use >= limits.local_share(self.size, gateways):
            return False
        self.in_use += 1
        self.last_used = now
        return True

    def undo(self, units: int, now: float) -> None:
        self.release()

    def give_back(self, keep: int) -> None:
        self.enqueue()

    def release(self) -> None:
        """A stream ended: its slot is free for every gateway, or for the next stream here while plenty are left."""
        self.in_use -= 1
        self._refused_until = 0.0
        if self._slots - self.in_use > self._spare():
            self.enqueue()

    def resize(self, size: int) -> None:
        self.size = size
        self._slots = min(self._slots, self.in_use)
        self._refused_until = 0.0

    def idle(self, now: float) -> None:
        if self.in_use or self._slots or any(self._registered.values()):
            self.enqueue()

    def forget_counter(self, now: float, gateways: int) -> None:
        self._registered.clear()
        self._slots = self._free = 0
        self.local_until = now + GRACE_S
        if self.in_use:
            self.enqueue()

    def standing(self, now: float, month_left: float) -> Standing:
        return Standing(self.size, max(0, self.size - self.in_use), RETRY_S)

    async def work(self, counters: Counters, clock: Clock, gateways: int) -> None:
        now = clock.monotonic()
        epoch, position = divmod(clock.now().timestamp(), EPOCH_S)
        present = int(epoch)
        for old in [number for number in self._registered if number < present]:
            del self._registered[old]
        if now < self.local_until:
            await self._register(counters, present, self.in_use)
            self.serve_locally(now, gateways)
            return
        asked_for = len(self._waiting)
        before = max(self._registered.get(present, 0), self.in_use)
        ahead = 0 if self.closing or now - self.last_used > IDLE_S else self._spare()
        goal = self.in_use + self._wanted + ahead
        self._slots = min(self._slots, goal)
        value = await self._register(counters, present, goal)
        if value is not None:
            self._free = max(0, self.size - value)
            over = min(value - self.size, goal - before)
            if over > 0:
                goal -= over
                await self._register(counters, present, goal)
        if position >= EPOCH_S - OVERLAP_S or present + 1 in self._registered:
            await self._register(counters, present + 1, goal)
        self._slots = goal
        self.retry_at = now + RETRY_S
        self._serve(lambda units: self.take(units, now), now, ASK_AGAIN_S, asked_for)

    def _spare(self) -> int:
        return min(self.size // SPARE_PART, self._free // limits.NEAR_PART)

    async def _register(self, counters: Counters, epoch: int, amount: int) -> int | None:
        """Make this gateway's part of an epoch's counter `amount`; the counter then, None when it was that already."""
        more = amount - self._registered.get(epoch, 0)
        if more == 0:
            return None
        value = await counters.add(self._subject_of(epoch), more)
        self._registered[epoch] = self._registered.get(epoch, 0) + more
        return value
