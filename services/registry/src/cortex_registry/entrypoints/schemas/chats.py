"""Bodies and answers of conversations."""

from dataclasses import asdict
from datetime import datetime

from pydantic import BaseModel, Field

from cortex_registry.domain.chats import MAX_CHATS, Chat, ChatContent, ChatHead, Title


class ChatRequest(ChatContent):
    """A whole conversation: it takes the place of what there is."""

    title: Title

    def content(self) -> ChatContent:
        """Without the title."""
        return ChatContent(models=self.models, system=self.system, parameters=self.parameters, messages=self.messages)


class ChatSummary(BaseModel):
    """A conversation in a list."""

    id: str
    version: int
    title: str
    models: tuple[str, ...]
    bytes: int = Field(description="What it takes, as it is stored.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, head: ChatHead) -> "ChatSummary":
        return cls(**asdict(head))


class ChatList(BaseModel):
    """All of one's own."""

    items: list[ChatSummary]
    limit: int = Field(default=MAX_CHATS, description="How many one may keep.")


class ChatAnswer(ChatSummary):
    """A conversation with what was said."""

    content: ChatContent

    @classmethod
    def shown(cls, chat: Chat) -> "ChatAnswer":
        return cls(**asdict(chat.head), content=chat.content)
