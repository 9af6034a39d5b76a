"""Tokenising: one request and one answer for both engines."""

import msgspec

from cortex_contracts.enums import EngineType
from cortex_gateway.domain import errors
from cortex_gateway.domain.levelling.checks import require_items
from cortex_gateway.domain.request_fields import NULL

MESSAGES_PATH = "/apply-template"
_Object = dict[str, msgspec.Raw]
_FOR_TEMPLATE = ("messages", "tools", "tool_choice", "add_generation_prompt", "chat_template_kwargs")


class TokenizeFields(msgspec.Struct):
    """What a client may ask for: exactly one of `prompt`, `content` and `messages`."""

    model: str
    prompt: str | None = None
    content: str | None = None
    messages: msgspec.Raw = NULL
    add_special_tokens: bool | None = None
    add_special: bool | None = None

    @property
    def text(self) -> str | None:
        return self.prompt if self.prompt is not None else self.content

    @property
    def special(self) -> bool:
        """Tokens that begin or end every prompt: yes, unless asked otherwise; a chat's template has its own."""
        asked = self.add_special_tokens if self.add_special_tokens is not None else self.add_special
        return asked if asked is not None else not self.has_messages

    @property
    def has_messages(self) -> bool:
        return self.messages is not NULL and bytes(memoryview(self.messages)[:4]) != b"null"


class DetokenizeFields(msgspec.Struct):
    model: str
    tokens: list[int]


class _Tokens(msgspec.Struct):
    tokens: list[int]
    max_model_len: int | None = None


class _Text(msgspec.Struct):
    prompt: str | None = None
    content: str | None = None


class _Rendered(msgspec.Struct):
    prompt: str


def read_tokenize(body: bytes) -> TokenizeFields:
    """Raises ApiError 400 `invalid_value`."""
    try:
        fields = msgspec.json.decode(body, type=TokenizeFields)
    except msgspec.ValidationError as error:
        raise errors.invalid_value(None, f"Invalid request: {error}.") from error
    if (fields.prompt is not None) + (fields.content is not None) + fields.has_messages != 1:
        raise errors.invalid_value(None, "Invalid request: give one of `prompt`, `content` and `messages`.")
    if fields.has_messages:
        require_items(fields.messages, "messages")
    return fields


def read_detokenize(body: bytes) -> DetokenizeFields:
    """Raises ApiError 400 `invalid_value`."""
    try:
        return msgspec.json.decode(body, type=DetokenizeFields)
    except msgspec.ValidationError as error:
        raise errors.invalid_value("tokens", f"Invalid request: {error}.") from error


def needs_template(engine: EngineType, fields: TokenizeFields) -> bool:
    """llama-server tokenises text only: a chat has to be rendered first, by a request of its own."""
    return engine is EngineType.LLAMACPP and fields.has_messages


def template_body(body: bytes) -> bytes:
    """The request that renders a chat."""
    members = msgspec.json.decode(body, type=_Object)
    return msgspec.json.encode({name: members[name] for name in _FOR_TEMPLATE if name in members})


def read_rendered(answer: bytes) -> str:
    """The chat as text. Raises msgspec.DecodeError."""
    return msgspec.json.decode(answer, type=_Rendered).prompt


def tokenize_body(body: bytes, fields: TokenizeFields, engine: EngineType, name: str, rendered: str | None) -> bytes:
    """The request for the engine; `rendered` is the chat as text when it had to be rendered first."""
    if engine is EngineType.LLAMACPP:
        text = rendered if rendered is not None else fields.text
        return msgspec.json.encode({"content": text, "add_special": fields.special or rendered is not None})
    if not fields.has_messages:
        asked = {"model": name, "prompt": fields.text, "add_special_tokens": fields.special}
        return msgspec.json.encode(asked)
    members = msgspec.json.decode(body, type=_Object)
    kept: dict[str, object] = {name: members[name] for name in _FOR_TEMPLATE if name in members}
    return msgspec.json.encode(kept | {"model": name})


def tokenize_answer(answer: bytes, context: int | None) -> bytes:
    """`context` is the most tokens of a request, told when the engine does not. Raises msgspec.DecodeError."""
    seen = msgspec.json.decode(answer, type=_Tokens)
    most = seen.max_model_len if seen.max_model_len is not None else context
    return msgspec.json.encode({"count": len(seen.tokens), "max_model_len": most, "tokens": seen.tokens})


def detokenize_body(fields: DetokenizeFields, name: str) -> bytes:
    """Both engines take it; llama-server does not look at the model."""
    return msgspec.json.encode({"model": name, "tokens": fields.tokens})


def detokenize_answer(answer: bytes) -> bytes:
    """Under both engines' names. Raises msgspec.DecodeError."""
    seen = msgspec.json.decode(answer, type=_Text)
    text = seen.prompt if seen.prompt is not None else seen.content or ""
    return msgspec.json.encode({"prompt": text, "content": text})


class _Counted(msgspec.Struct):
    input_tokens: int


def count_answer(body: bytes) -> bytes:
    """The answer of count_tokens. Raises msgspec.DecodeError."""
    return msgspec.json.encode({"input_tokens": msgspec.json.decode(body, type=_Counted).input_tokens})
