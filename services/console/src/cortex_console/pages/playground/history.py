"""The list of one's conversations."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from nicegui import ui

from cortex_console.components.buttons import button, icon_button
from cortex_console.components.text import Text, box, labelled
from cortex_console.domain.chat import ChatSummary
from cortex_console.domain.formatting import ago_text, time_text


@dataclass(frozen=True, slots=True)
class HistoryActs:
    """What can be done from the list."""

    new: Callable[[], Awaitable[None]]
    open: Callable[[str], Awaitable[None]]
    delete: Callable[[ChatSummary], Awaitable[None]]
    delete_all: Callable[[], Awaitable[None]]


SHOWN = 60
"""Of the list, to begin with: one looks for the last ones."""


class History:
    """Beside the conversation on a wide screen, folded above it on a narrow one."""

    def __init__(self, acts: HistoryActs) -> None:
        self._acts = acts
        with labelled(box("pg-history", "section"), "Conversations") as self.element:
            with box("pg-history-head"):
                button("New chat", acts.new, icon="o_add")
                icon_button("o_delete_sweep", "Delete all conversations", acts.delete_all)
            self._list = box("pg-history-list")

    def toggle(self) -> None:
        """Unfold it on a narrow screen, or fold it."""
        self.element.classes(toggle="pg-open")

    def fold(self) -> None:
        """As after one was chosen."""
        self.element.classes(remove="pg-open")

    def show(self, chats: Sequence[ChatSummary], current: str, *, most: int = SHOWN) -> None:
        """Draw these."""
        now = datetime.now(UTC)
        self._list.clear()
        with self._list:
            if not chats:
                Text("p", "What you ask is kept here, for you alone.", "c-hint pg-history-none")
            for chat in chats[:most]:
                with box("pg-history-row"):
                    self._row(chat, chat.id == current, now)
            if len(chats) > most:
                button(f"Show all {len(chats)}", lambda: self.show(chats, current, most=len(chats)), kind="quiet")

    def _row(self, chat: ChatSummary, current: bool, now: datetime) -> None:
        async def open_it() -> None:
            await self._acts.open(chat.id)

        async def delete_it() -> None:
            await self._acts.delete(chat)

        chosen = ui.button(color=None, on_click=open_it).props("flat no-caps align=left").classes("pg-history-item")
        if current:
            chosen.props('aria-current="true"')
        with chosen, box("pg-history-text"):
            Text("span", chat.title, "pg-history-title c-clip")
            Text("span", ago_text(chat.updated_at, now), "c-hint").props["title"] = time_text(chat.updated_at)
        icon_button("o_close", f"Delete {chat.title}", delete_it)
