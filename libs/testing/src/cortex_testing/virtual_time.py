"""An event loop whose time jumps: whatever would be waited for has passed at once. For fakes; no real I/O belongs on it."""

import asyncio
import selectors
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class _JumpingSelector(selectors.SelectSelector):
    """Never blocks: moves the loop's time on by what it would have waited, unless a thread's answer is due."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(5.0)
        ready = super().select(0)
        if not ready:
            self.elapsed += max(0.0, timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 0 seconds. Return it from the hook `pytest_asyncio_loop_factories`."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.elapsed


class LoopClock:
    """A clock that reads the running loop's time."""

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()
