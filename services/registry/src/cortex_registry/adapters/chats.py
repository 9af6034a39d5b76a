"""Conversations in Postgres."""

from collections.abc import Sequence
from datetime import datetime

from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import Row
from cortex_registry.domain.chats import MAX_CHATS, Chat, ChatContent, ChatHead, ChatToStore, require_room
from cortex_registry.domain.versions import Expected, require_version

_SQL = load_queries("chats")


class PostgresChats:
    """ChatRepository."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_of(self, user_id: str) -> Sequence[ChatHead]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["list_chats"], user_id, MAX_CHATS)
        return [_head(row) for row in rows]

    async def find(self, user_id: str, chat_id: str) -> Chat | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["find_chat"], user_id, chat_id)
        return _chat(row) if row is not None else None

    async def put(self, user_id: str, chat: ChatToStore, expected: Expected, now: datetime) -> Chat:
        async with self._database.transaction() as connection:
            # The owner's row is locked, so that two new ones at once are not one too many.
            await connection.execute(_SQL["lock_chat_owner"], user_id)
            present = await connection.fetchrow(_SQL["find_chat"], user_id, chat.id)
            require_version(expected, present["version"] if present is not None else 0)
            if present is None:
                require_room(await connection.fetchval(_SQL["count_chats"], user_id))
            row = await connection.fetchrow(
                _SQL["put_chat"],
                user_id,
                chat.id,
                chat.title,
                list(chat.content.models),
                chat.json,
                len(chat.json.encode()),
                now,
            )
        assert row is not None
        return _chat(row)

    async def delete(self, user_id: str, chat_id: str) -> bool:
        async with self._database.transaction() as connection:
            return await connection.fetchval(_SQL["delete_chat"], user_id, chat_id) is not None

    async def delete_all(self, user_id: str) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["delete_chats"], user_id)


def _chat(row: Row) -> Chat:
    return Chat(_head(row), ChatContent.model_validate_json(row["content"]))


def _head(row: Row) -> ChatHead:
    return ChatHead(
        id=str(row["id"]),
        version=row["version"],
        title=row["title"],
        models=tuple(row["models"]),
        bytes=row["bytes"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
