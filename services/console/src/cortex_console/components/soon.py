"""Reading that begins while the browser still loads the page, for what would keep the page from being sent."""

from collections.abc import Awaitable, Callable

from nicegui import ui


class _Now(ui.timer):
    """NiceGUI's timers wait for the browser."""

    async def _can_start(self) -> bool:
        return not self._should_stop()


def soon(read: Callable[[], Awaitable[None]]) -> None:
    """Call it once, without waiting. What it draws is sent as soon as the browser is there; it may ask nothing of the browser."""
    _Now(0, read, once=True)
