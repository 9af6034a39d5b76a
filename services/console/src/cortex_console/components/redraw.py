"""Drawing only what changed: what is redrawn loses its focus and is closed again."""

from collections.abc import Generator
from contextlib import contextmanager

from nicegui import ui


class Redraw:
    """A container, and what it shows."""

    def __init__(self, element: ui.element) -> None:
        self.element = element
        self._shown: object = object()

    def due(self, value: object) -> bool:
        """Whether it shows something else than this; from now on it is taken to show this."""
        if value == self._shown:
            return False
        self._shown = value
        return True

    @contextmanager
    def fresh(self) -> Generator[None]:
        """Empty it and draw into it."""
        self.element.clear()
        with self.element:
            yield
