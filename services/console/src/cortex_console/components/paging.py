"""Lists that the server hands out part by part."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nicegui import ui

from cortex_console.components.buttons import button
from cortex_console.components.table import Table
from cortex_console.components.text import Text, box

Read = Callable[[str | None], Awaitable[tuple[Sequence[Mapping[str, Any]], str | None]]]
"""Given where to begin: rows, and where the next part begins."""


class Paging:
    """Fills a table, and offers more below it. Reading anew keeps as many parts as were looked at."""

    def __init__(self, table: Table, read: Read, *, noun: str, count: Text, nouns: str = "") -> None:
        self._table = table
        self._read = read
        self._nouns = (noun, nouns or f"{noun}s")
        self._count = count
        self._parts = 1
        self._next: str | None = None
        self.rows: list[Mapping[str, Any]] = []
        with box("c-line c-center") as self._foot:
            self._more: ui.button = button("Show more", self._on_more)
        self._foot.visible = False

    async def first(self) -> None:
        """Read from the beginning, as after another filter."""
        self._parts = 1
        await self.reload()

    async def reload(self) -> None:
        """Read what is shown anew."""
        found: list[Mapping[str, Any]] = []
        after: str | None = None
        for _ in range(self._parts):
            some, after = await self._read(after)
            found.extend(some)
            if after is None:
                break
        self._show(found, after)

    async def _on_more(self) -> None:
        some, after = await self._read(self._next)
        self._parts += 1
        self._show([*self.rows, *some], after)

    def _show(self, found: list[Mapping[str, Any]], after: str | None) -> None:
        self.rows, self._next = found, after
        self._table.show(found)
        self._foot.visible = after is not None
        number = len(found)
        shown = f"{number} {self._nouns[number != 1]}"
        self._count.text = shown if after is None else f"the first {shown}"
