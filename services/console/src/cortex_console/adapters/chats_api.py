"""One's own conversations by the admin API."""

from enum import Enum, auto
from uuid import uuid4

from cortex_console.domain.chat import ChatSummary, Conversation
from cortex_console.domain.shapes import row, rows, text, whole
from cortex_console.errors import ConsoleError
from cortex_console.ports import AdminCalls


class Kept(Enum):
    """As what a conversation was kept."""

    ITSELF = auto()
    BRANCH = auto()
    """Another tab went on with it, so what was said here became a conversation of its own."""
    ANEW = auto()
    """Another tab deleted it, so it became a new one."""


class ChatsApi:
    """Every method raises ConsoleError."""

    def __init__(self, calls: AdminCalls) -> None:
        self._calls = calls

    async def list_all(self) -> list[ChatSummary]:
        """The last changed first."""
        return [ChatSummary.of(one) for one in rows((await self._calls.get("/me/chats")).get("items"))]

    async def get(self, chat_id: str) -> Conversation | None:
        """None when there is none, as after another browser deleted it."""
        try:
            return Conversation.of(await self._calls.get(f"/me/chats/{chat_id}"))
        except ConsoleError as error:
            if error.status in (404, 422):
                return None
            raise

    async def keep(self, conversation: Conversation) -> Kept:
        """Keep it as it is here; its version follows. Nothing that another tab has put into it is lost."""
        try:
            await self._put(conversation)
        except ConsoleError as error:
            if error.code != "precondition_failed":
                raise
        else:
            return Kept.ITSELF
        stored = await self.get(conversation.id)
        if stored is not None and conversation.goes_on(stored):
            conversation.version = stored.version  # it was kept, only the answer to that never came
            kept = Kept.ITSELF
        else:
            conversation.become_another(str(uuid4()), copy=stored is not None)
            kept = Kept.ANEW if stored is None else Kept.BRANCH
        await self._put(conversation)
        return kept

    async def _put(self, conversation: Conversation) -> None:
        path = f"/me/chats/{conversation.id}"
        answer = await self._calls.put(path, conversation.stored(), version=conversation.version)
        conversation.version = whole(row(answer).get("version"))
        conversation.title = text(answer.get("title"), conversation.title)

    async def delete(self, chat_id: str) -> None:
        """Forget it; harmless when it is gone."""
        try:
            await self._calls.delete(f"/me/chats/{chat_id}")
        except ConsoleError as error:
            if error.status != 404:
                raise

    async def delete_all(self) -> None:
        """Forget all of them."""
        await self._calls.delete("/me/chats")
