"""Conversations that users keep of the playground: how many, how large, of what shape."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cortex_kit.errors import DomainError

MAX_CHATS = 200
"""Of one user."""
MAX_BYTES = 200_000
"""Of one conversation, as it is stored."""

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Text = Annotated[str, StringConstraints(max_length=MAX_BYTES)]
Count = Annotated[int, Field(ge=0, le=2_000_000_000)]


class ChatMessage(BaseModel):
    """What was said, and what it cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["user", "assistant"]
    text: Text
    side: Annotated[int, Field(ge=0, le=1)] = 0
    """Which of two models beside each other answered."""
    model: ModelName | None = None
    error: Annotated[str, StringConstraints(max_length=2000)] = ""
    stopped: bool = False
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    ttft_ms: Annotated[float, Field(ge=0, le=1e9)] | None = None
    duration_ms: Annotated[float, Field(ge=0, le=1e9)] | None = None


class ChatParameters(BaseModel):
    """What is sent with each question; null: what the model has for itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-(2**53), le=2**53)] | None = None
    stop: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=1, max_length=200)], ...], Field(max_length=4)
    ] = ()


class ChatContent(BaseModel):
    """A conversation."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "models": ["small"],
                    "system": "Answer briefly.",
                    "parameters": {"temperature": 0.2},
                    "messages": [
                        {"role": "user", "text": "Hello"},
                        {"role": "assistant", "text": "Hello!", "model": "small", "completion_tokens": 3},
                    ],
                }
            ]
        },
    )

    models: Annotated[tuple[ModelName, ...], Field(max_length=2)] = ()
    system: Annotated[str, StringConstraints(max_length=50_000)] = ""
    parameters: ChatParameters = ChatParameters()
    messages: Annotated[tuple[ChatMessage, ...], Field(max_length=1000)] = ()


@dataclass(frozen=True, slots=True)
class ChatHead:
    """A conversation without what was said."""

    id: str
    version: int
    title: str
    models: tuple[str, ...]
    bytes: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Chat:
    """A stored conversation."""

    head: ChatHead
    content: ChatContent


@dataclass(frozen=True, slots=True)
class ChatToStore:
    """What is put in place of a conversation, or becomes a new one."""

    id: str
    title: str
    content: ChatContent
    json: str


def to_store(chat_id: str, title: str, content: ChatContent) -> ChatToStore:
    """What is kept.

    Raises:
        DomainError: 422 `chat_too_large`.
    """
    json = content.model_dump_json(exclude_defaults=True)
    size = len(json.encode())
    if size > MAX_BYTES:
        message = f"The conversation takes {size} bytes; at most {MAX_BYTES} are kept."
        errors = [{"field": "messages", "code": "chat_too_large", "message": message}]
        raise DomainError("chat_too_large", message, status=422, details={"errors": errors, "limit": MAX_BYTES})
    return ChatToStore(chat_id, title, content, json)


def require_room(count: int) -> None:
    """Raises DomainError 409 `too_many_chats` when a user with `count` of them wants another."""
    if count >= MAX_CHATS:
        message = f"You have {MAX_CHATS} conversations, which is the most. Delete some first."
        raise DomainError("too_many_chats", message, status=409, details={"limit": MAX_CHATS})
