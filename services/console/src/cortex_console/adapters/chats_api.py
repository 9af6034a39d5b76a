"""One's own conversations by the admin API."""

from cortex_console.domain.chat import ChatSummary, Conversation
from cortex_console.domain.shapes import row, rows, text, whole
from cortex_console.errors import ConsoleError
from cortex_console.ports import AdminCalls


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

    async def put(self, conversation: Conversation) -> None:
        """Keep it as it is here; its version follows."""
        answer = await self._calls.put(f"/me/chats/{conversation.id}", conversation.stored())
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
