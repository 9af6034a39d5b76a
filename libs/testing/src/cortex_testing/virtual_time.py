"""An event loop whose time jumps: whatever would be waited for has passed at once. For fakes; no real I/O belongs on it."""

import asyncio
import selectors
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class _JumpingSelector(selectors.BaseSelector):
    """Never blocks: moves the loop's time on by what it would have waited, unless a thread's answer is due."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.elapsed = 0.0

    def register(self, fileobj: "selectors._FileObject", events: int, data: object = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: "selectors._FileObject") -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return self._real.select(5.0)
        ready = self._real.select(0)
        if not ready:
            self.elapsed += max(0.0, timeout)
        return ready

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> "Mapping[selectors._FileObject, selectors.SelectorKey]":
        return self._real.get_map()


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
