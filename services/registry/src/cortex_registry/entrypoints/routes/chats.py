"""Routes of one's own conversations of the playground."""

from uuid import UUID

from fastapi import APIRouter, Response

from cortex_contracts.rights import Right
from cortex_registry.entrypoints.access import IdentityOf, Routes
from cortex_registry.entrypoints.preconditions import IfMatch, show_version
from cortex_registry.entrypoints.routes.usage import user_of
from cortex_registry.entrypoints.schemas.chats import ChatAnswer, ChatList, ChatRequest, ChatSummary
from cortex_registry.handlers.chats import ChatService


class ChatRoutes:
    """/admin/me/chats."""

    def __init__(self, service: ChatService) -> None:
        self._service = service

    def router(self) -> APIRouter:
        routes = Routes("auth")
        routes.add("GET", "/me/chats", self.list_own, Right.SELF)
        routes.add("DELETE", "/me/chats", self.delete_all, Right.SELF, status_code=204)
        routes.add("GET", "/me/chats/{chat_id}", self.get, Right.SELF)
        routes.add("PUT", "/me/chats/{chat_id}", self.put, Right.SELF)
        routes.add("DELETE", "/me/chats/{chat_id}", self.delete, Right.SELF, status_code=204)
        return routes.router

    async def list_own(self, identity: IdentityOf) -> ChatList:
        """One's own conversations without what was said, the last changed first."""
        return ChatList(items=[ChatSummary.of(head) for head in await self._service.list_of(user_of(identity))])

    async def get(self, chat_id: UUID, identity: IdentityOf, response: Response) -> ChatAnswer:
        """One of one's own conversations."""
        return _shown(ChatAnswer.shown(await self._service.get(user_of(identity), str(chat_id))), response)

    async def put(
        self, chat_id: UUID, body: ChatRequest, identity: IdentityOf, expected: IfMatch, response: Response
    ) -> ChatAnswer:
        """Keep a conversation under an id of one's choice, whole; their number and size are bounded."""
        head = str(chat_id), body.title
        return _shown(
            ChatAnswer.shown(await self._service.put(user_of(identity), head, body.content(), expected)), response
        )

    async def delete(self, chat_id: UUID, identity: IdentityOf) -> None:
        """Forget one of one's own conversations."""
        await self._service.delete(user_of(identity), str(chat_id))

    async def delete_all(self, identity: IdentityOf) -> None:
        """Forget all of one's own conversations."""
        await self._service.delete_all(user_of(identity))


def _shown(answer: ChatAnswer, response: Response) -> ChatAnswer:
    response.headers["Cache-Control"] = "no-store"
    show_version(response, answer.version)
    return answer
