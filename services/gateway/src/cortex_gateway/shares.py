"""What one gateway holds of one limit of one key. Each is worked on by one worker at a time; `take` is the hot path."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from cortex_gateway.domain import limits
from cortex_gateway.domain.limits import WINDOW_S, Limit, RecentUse, Standing
from cortex_gateway.ports import Counters, Headers
from cortex_kit.clock import Clock
from cortex_kit.ids import uuid7

READ_EVERY_S = 1.0
ASK_AGAIN_S = 0.5
"""A refused gateway looks this often whether others gave something back."""
ASK_BUDGET_AGAIN_S = 5.0
GRACE_S = 10.0
"""After the counters were lost every gateway says what it has used before any takes more; meanwhile each keeps to what
it had and its part of the rest."""
IDLE_S = 1.0


class Share(ABC):
    """Units in hand, requests that wait for some, and what the counter still has to be told."""

    def __init__(self, limit: Limit, size: int, enqueue: Callable[["Share"], None]) -> None:
        self.limit = limit
        self.size = size
        self.queued = False
        self.held = 0
        """Units that may be used without asking; below zero when requests used more than they had reserved."""
        self.closing = False
        """Nothing is taken ahead any more."""
        self.local_until = 0.0
        """Until then it grants by itself, because the counters have just been lost."""
        self.last_used = 0.0
        self._enqueue = enqueue
        self._waiting: deque[tuple[int, asyncio.Future[bool]]] = deque()
        self._wanted = 0
        self._refused_until = 0.0
        self._refused_units = 0
        self.retry_at = 0.0

    def enqueue(self) -> None:
        """Have a worker look at it."""
        if not self.queued:
            self.queued = True
            self._enqueue(self)

    def hopeless(self, units: int, now: float) -> bool:
        """True when as much was refused a moment ago."""
        return now < self._refused_until and units >= self._refused_units

    def wait(self, units: int) -> asyncio.Future[bool]:
        """A future that tells whether the units were taken."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((units, future))
        self._wanted += units
        self.enqueue()
        return future

    def _serve(self, take: Callable[[int], bool], now: float, again_s: float, first: int | None = None) -> None:
        """Answer those who wait, in order; who cannot be served now is refused. With `first` only so many: who came
        while the counter was asked has not been asked for yet."""
        refused = 0
        for _ in range(len(self._waiting) if first is None else first):
            units, future = self._waiting.popleft()
            self._wanted -= units
            if future.done():
                continue
            taken = take(units)
            future.set_result(taken)
            if not taken:
                refused = units if refused == 0 else min(refused, units)
        if refused:
            self._refused_until, self._refused_units = now + again_s, refused

    @property
    def wanted(self) -> bool:
        """True while requests wait for units."""
        return bool(self._waiting)

    @property
    @abstractmethod
    def busy(self) -> bool:
        """True while it must not be forgotten."""

    @abstractmethod
    def ready(self, units: int) -> bool:
        """True when `take` would succeed and nobody waits."""

    @abstractmethod
    def take(self, units: int, now: float) -> bool:
        """Use units in hand; asks for more in time."""

    @abstractmethod
    def take_locally(self, units: int, now: float, gateways: int) -> bool:
        """Use units while the counters are out of reach: this gateway's part of the limit, told to them later."""

    @abstractmethod
    def undo(self, units: int, now: float) -> None:
        """A request that took units is not going to use them."""

    @abstractmethod
    def resize(self, size: int) -> None:
        """The key was changed: from now on this is its limit."""

    @abstractmethod
    def give_back(self, keep: int) -> None:
        """Return what is held beyond `keep`."""

    @abstractmethod
    def idle(self, now: float) -> None:
        """Once a second: hold no more than is needed."""

    @abstractmethod
    def forget_counter(self, now: float, gateways: int) -> None:
        """The counter was lost: it is told what was used here, and nothing is taken until others have said theirs."""

    @abstractmethod
    def standing(self, now: float, month_left: float) -> Standing:
        """What a client is told."""

    @abstractmethod
    async def work(self, counters: Counters, clock: Clock, gateways: int) -> None:
        """Tell the counter what it is owed, take what is needed, answer those who wait.

        Raises:
            TransientError: the counters are out of reach; those who wait are still waiting.
        """

    def serve_locally(self, now: float, gateways: int) -> None:
        """Answer those who wait without the counters."""
        self._serve(lambda units: self.take_locally(units, now, gateways), now, ASK_AGAIN_S)


class MeteredShare(Share):
    """Requests or tokens: of any sixty seconds, or of a calendar month."""

    def __init__(self, limit: Limit, size: int, subject: str, enqueue: Callable[[Share], None]) -> None:
        super().__init__(limit, size, enqueue)
        self.subject = subject
        self._names = limits.HeaderNames(limit)
        self.recent = RecentUse()
        self.owed = 0
        """To be added to the counter: used without asking, or (below zero) given back."""
        self._reporting: tuple[int, str] | None = None
        """What is being told and the id it is told under: the same one until it is confirmed."""
        self._value: int | None = None
        self._base = 0
        """The counter a minute ago."""
        self._lows: deque[tuple[float, int]] = deque()
        """Lowest values seen since, rising: what was given back of an older time must not be granted twice."""
        self._local: int | None = None
        self._read_at = -READ_EVERY_S
        self._taken = 0
        self._rate = 0.0
        self._rated_at = 0.0
        self._target = 0

    @property
    def busy(self) -> bool:
        return self.queued or self.held > 0 or self.owed != 0

    @property
    def windowed(self) -> bool:
        return self.limit is not Limit.BUDGET

    def ready(self, units: int) -> bool:
        return self.held >= units and not self._waiting

    def take(self, units: int, now: float) -> bool:
        if self.held < units:
            return False
        self.held -= units
        self._taken += units
        self.last_used = now
        self.recent.add(now, units)
        if self.held * 2 < self._target and not self.queued:
            self.enqueue()
        return True

    def take_locally(self, units: int, now: float, gateways: int) -> bool:
        if self.take(units, now):
            return True
        if self.windowed:
            fits = self.recent.total(now) + units <= self._local_size(now, gateways)
        else:
            fits = self.owed + units <= limits.local_budget(self.size, self._value, gateways)
        if fits:
            self.owed += units
            self.last_used = now
            self.recent.add(now, units)
        return fits

    def _local_size(self, now: float, gateways: int) -> int:
        """What this gateway had when the counters were last within reach, and its part of what nobody had."""
        if self._local is None:
            own = self.recent.total(now) + max(0, self.held)
            left = None if self._value is None else self._remaining()
            self._local = limits.local_size(self.size, own, left, gateways)
        return min(self._local, self.size)

    def undo(self, units: int, now: float) -> None:
        self.correct(-units, now)

    def correct(self, units: int, now: float) -> None:
        """What was used beyond (or, below zero, short of) what had been reserved."""
        self.held -= units
        self.recent.add(now, units)
        if self.held < 0:
            self.enqueue()

    def resize(self, size: int) -> None:
        self.size = size
        self.give_back(0)
        self._refused_until = 0.0

    def give_back(self, keep: int) -> None:
        if self.held > keep:
            self.owed -= self.held - keep
            self.held = keep
            self.enqueue()

    def idle(self, now: float) -> None:
        self.give_back(0 if now - self.last_used > IDLE_S else 2 * self._target)

    def forget_counter(self, now: float, gateways: int) -> None:
        self._local_size(now, gateways)
        self.owed = self.recent.total(now) + max(0, self.held)
        self._reporting = None
        self._lows.clear()
        self._value, self._base, self._read_at = None, 0, -READ_EVERY_S
        self.local_until = now + GRACE_S
        if self.owed:
            self.enqueue()

    def headers(self, now: float) -> Headers:
        """OpenAI's headers of this limit, as of now."""
        return self._names.headers(self.size, *self._left(now))

    def head(self, now: float) -> bytes:
        """The same as header lines."""
        remaining, reset_s = self._left(now)
        return self._names.head(self.size, remaining, reset_s)

    def _left(self, now: float) -> tuple[int, int]:
        """Units that are left, and seconds until all are there again."""
        last = self.recent.last()
        remaining = self._remaining()
        if self.held > 0:
            remaining += self.held
        return remaining, 0 if last is None else int(last - now)

    def standing(self, now: float, month_left: float) -> Standing:
        remaining = min(self.size, self._remaining() + max(0, self.held))
        if not self.windowed:
            return Standing(self.size, remaining, month_left)
        last = self.recent.last()
        return Standing(self.size, remaining, 0.0 if last is None else max(0.0, min(WINDOW_S, last - now)))

    async def work(self, counters: Counters, clock: Clock, gateways: int) -> None:
        if self.held < 0:
            self.owed -= self.held
            self.held = 0
        await self._report(counters, clock)
        now = clock.monotonic()
        if now < self.local_until:
            self.serve_locally(now, gateways)
            return
        self._local = None
        if now - self._read_at >= READ_EVERY_S:
            await self._read(counters, clock)
        self._measure(now)
        ahead = self._target - self.held if now - self.last_used < IDLE_S and not self.closing else 0
        asked_for, wanted = len(self._waiting), self._wanted
        while (asked := limits.lease_size(wanted - self.held, ahead, self._remaining())) > 0:
            if not await self._lease(counters, clock, asked):
                break
            # Answers that cost more than was reserved may have used it up meanwhile: then once more, and nobody is refused.
            ahead = 0
        now = clock.monotonic()
        if wanted > self.held and self._read_at < now - ASK_AGAIN_S / 2:
            await self._read(counters, clock)
        again_s = max(0.001, min(ASK_AGAIN_S, self.retry_at - now)) if self.windowed else ASK_BUDGET_AGAIN_S
        self._serve(lambda units: self.take(units, now), now, again_s, asked_for)

    async def _lease(self, counters: Counters, clock: Clock, asked: int) -> bool:
        """Take so many units; False when there were fewer."""
        value = await counters.add(self.subject, asked)
        self._note(value - asked, clock.monotonic())
        got = limits.granted(value, asked, self._allowance())
        self.held += got
        self._value = value
        if got < asked:
            self.owed += got - asked
            await self._report(counters, clock)
        return got == asked

    async def _report(self, counters: Counters, clock: Clock) -> None:
        """Add what is owed; repeated under the same id until it is confirmed, so that it counts once."""
        while self.owed or self._reporting is not None:
            if self._reporting is None:
                self._reporting = (self.owed, uuid7())
            units, operation = self._reporting
            self._value = await counters.add(self.subject, units, operation)
            self._reporting = None
            self.owed -= units
            self._note(self._value, clock.monotonic())

    def _note(self, value: int, now: float) -> None:
        lows = self._lows
        while lows and lows[-1][1] >= value:
            lows.pop()
        lows.append((now, value))

    def _allowance(self) -> int:
        if not self.windowed:
            return self.size
        base, lows = self._base, self._lows
        if lows and lows[0][1] < base:
            base = lows[0][1]
        return self.size + base

    async def _read(self, counters: Counters, clock: Clock) -> None:
        """What had been counted a minute ago, and what is counted now."""
        if not self.windowed:
            self._value = await counters.last(self.subject) or 0
            self._read_at = clock.monotonic()
            return
        since = clock.now() - timedelta(seconds=WINDOW_S)
        reading = await counters.read(self.subject, since)
        now = clock.monotonic()
        self._read_at = now
        while self._lows and self._lows[0][0] < now - WINDOW_S:
            self._lows.popleft()
        if reading is None:
            self._value = self._base = 0
            return
        self._base, self._value = reading.before, reading.value
        self.retry_at = now + max(0.0, (reading.first_at - since).total_seconds())

    def _remaining(self) -> int:
        left = self._allowance() - (self._value or 0)
        if self.owed > 0:
            left -= self.owed
        return max(0, left)

    def _measure(self, now: float) -> None:
        elapsed = now - self._rated_at
        if elapsed >= limits.LEASE_S / 2:
            self._rate = (self._rate + self._taken / elapsed) / 2
            self._rated_at, self._taken = now, 0
            self._target = limits.lease_target(self._rate, self.size)
