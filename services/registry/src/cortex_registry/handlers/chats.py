"""What users do with their conversations."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from cortex_kit.clock import Clock
from cortex_kit.errors import DomainError
from cortex_registry.domain.chats import Chat, ChatContent, ChatHead, ChatToStore, to_store
from cortex_registry.domain.versions import Expected


class ChatRepository(Protocol):
    """Conversations in the database. Every method raises DatabaseUnavailableError."""

    async def list_of(self, user_id: str) -> Sequence[ChatHead]:
        """A user's, the last changed first."""
        ...

    async def find(self, user_id: str, chat_id: str) -> Chat | None:
        """None also for somebody else's."""
        ...

    async def put(self, user_id: str, chat: ChatToStore, expected: Expected, now: datetime) -> Chat:
        """Make it, or put it in place of what there is. Raises DomainError 409 `too_many_chats`, 412."""
        ...

    async def delete(self, user_id: str, chat_id: str) -> bool:
        """False when there was none."""
        ...

    async def delete_all(self, user_id: str) -> None:
        """Of one user."""
        ...


class ChatService:
    """Everything is about one user's own; what one says to a model concerns nobody else, so nothing of it is audited."""

    def __init__(self, repository: ChatRepository, *, clock: Clock) -> None:
        self._repository = repository
        self._clock = clock

    async def list_of(self, user_id: str) -> Sequence[ChatHead]:
        """The last changed first, all of them: their number is bounded."""
        return await self._repository.list_of(user_id)

    async def get(self, user_id: str, chat_id: str) -> Chat:
        """Raises DomainError 404 `chat_not_found`."""
        found = await self._repository.find(user_id, chat_id)
        if found is None:
            raise _missing(chat_id)
        return found

    async def put(self, user_id: str, head: tuple[str, str], content: ChatContent, expected: Expected) -> Chat:
        """Keep it under the id that the client chose; `head` is id and title.

        Raises:
            DomainError: 409 `too_many_chats`; 412; 422 `chat_too_large`.
        """
        return await self._repository.put(user_id, to_store(*head, content), expected, self._clock.now())

    async def delete(self, user_id: str, chat_id: str) -> None:
        """Raises DomainError 404 `chat_not_found`."""
        if not await self._repository.delete(user_id, chat_id):
            raise _missing(chat_id)

    async def delete_all(self, user_id: str) -> None:
        """Forget all of them."""
        await self._repository.delete_all(user_id)


def _missing(chat_id: str) -> DomainError:
    return DomainError("chat_not_found", f"There is no conversation {chat_id[:64]!r}.", status=404)
