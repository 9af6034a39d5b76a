"""Conversations of the playground."""

from cortex_registry.adapters.chats import PostgresChats
from cortex_registry.entrypoints.routes.chats import ChatRoutes
from cortex_registry.handlers.chats import ChatService
from cortex_registry.wiring.core import Core, Part


def chats_part(core: Core) -> Part:
    """Routes alone."""
    return Part(routers=(ChatRoutes(ChatService(PostgresChats(core.database), clock=core.clock)).router(),))
