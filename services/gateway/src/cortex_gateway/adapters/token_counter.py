"""Asks an engine how many tokens a prompt had, when the client left before the engine said so."""

import msgspec

from cortex_contracts.enums import EngineType
from cortex_gateway.domain.routing import Target
from cortex_gateway.ports import UpstreamClient, UpstreamError, UpstreamRequest
from cortex_kit.logging import get_logger

log = get_logger()

MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_QUESTIONS = 16
"""A request with more texts than this is estimated."""
_CHAT = ("model", "messages", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt")
_Object = dict[str, msgspec.Raw]


class _Counted(msgspec.Struct):
    """llama-server answers `input_tokens` or `tokens`, vLLM `count`."""

    input_tokens: int | None = None
    count: int | None = None
    tokens: list[msgspec.Raw] | None = None


class EngineTokenCounter:
    """See `ports.TokenCounter`."""

    def __init__(self, client: UpstreamClient, *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s

    async def count_prompt(self, target: Target, upstream_path: str, body: bytes) -> int | None:
        try:
            questions, known = counting_questions(target.engine_type, upstream_path, body)
            counts = [await self._ask(target, path, question) for path, question in questions]
        except (UpstreamError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.info("prompt_not_counted", replica_id=target.replica_id, error=str(error))
            return None
        if not counts and not known:
            return None
        given = [count for count in counts if count is not None]
        return known + sum(given) if len(given) == len(counts) else None

    async def _ask(self, target: Target, path: str, body: bytes) -> int | None:
        request = UpstreamRequest(path, body, self._timeout_s, self._timeout_s)
        response = await self._client.post(target.endpoint, request)
        try:
            answer = await response.read_all(MAX_ANSWER_BYTES)
        finally:
            response.close()
        return read_count(answer) if response.status == 200 else None


Question = tuple[str, bytes]
"""Path and body of a request that counts."""


def counting_questions(engine_type: EngineType, upstream_path: str, body: bytes) -> tuple[list[Question], int]:
    """What to ask for the tokens of a prompt, and how many are known without asking. Nothing of both: no way to ask.

    Raises:
        msgspec.DecodeError: the body is not a JSON object.
    """
    members = msgspec.json.decode(body, type=_Object)
    if upstream_path == "/v1/messages":
        return [("/v1/messages/count_tokens", _without_stream(members))], 0
    if upstream_path == "/v1/responses":
        return _of_response(engine_type, members), 0
    if "messages" in members and engine_type is EngineType.LLAMACPP:
        return [("/v1/chat/completions/input_tokens", _without_stream(members))], 0
    if "messages" in members:
        return [("/tokenize", msgspec.json.encode({name: members[name] for name in _CHAT if name in members}))], 0
    return _of_texts(engine_type, members)


def _of_response(engine_type: EngineType, members: _Object) -> list[Question]:
    """llama-server counts responses; vLLM counts chats, which an input in one piece is."""
    if engine_type is EngineType.LLAMACPP:
        return [("/v1/responses/input_tokens", _without_stream(members))]
    asked = members.get("input")
    if asked is None or not bytes(asked).startswith(b'"'):
        return []
    chat: list[object] = [{"role": "user", "content": asked}]
    if "instructions" in members and bytes(members["instructions"]) != b"null":
        chat.insert(0, {"role": "system", "content": members["instructions"]})
    kept = {name: members[name] for name in ("model", "tools") if name in members}
    return [("/tokenize", msgspec.json.encode(kept | {"messages": chat}))]


def _of_texts(engine_type: EngineType, members: _Object) -> tuple[list[Question], int]:
    """One question per text, none for prompts that are tokens already."""
    prompt = members.get("prompt", members.get("input"))
    raw = b"" if prompt is None else bytes(prompt)
    if prompt is None or raw[:1] not in (b'"', b"["):
        return [], 0
    items = [prompt] if raw.startswith(b'"') else msgspec.json.decode(raw, type=list[msgspec.Raw])
    if items and bytes(items[0])[:1] not in (b'"', b"["):
        return [], len(items)
    known = sum(len(msgspec.json.decode(item, type=list[int])) for item in items if bytes(item)[:1] == b"[")
    texts = [item for item in items if bytes(item)[:1] == b'"']
    if len(texts) > MAX_QUESTIONS:
        return [], 0
    model = {"model": members["model"]} if "model" in members else {}
    return [_of_text(engine_type, model, text) for text in texts], known


def _of_text(engine_type: EngineType, model: _Object, text: msgspec.Raw) -> Question:
    if engine_type is EngineType.LLAMACPP:
        return "/tokenize", msgspec.json.encode({"content": text, "add_special": True})
    return "/tokenize", msgspec.json.encode({**model, "prompt": text})


def read_count(answer: bytes) -> int | None:
    """The count in any engine's answer. Raises msgspec.DecodeError."""
    counted = msgspec.json.decode(answer, type=_Counted)
    if counted.input_tokens is not None:
        return counted.input_tokens
    if counted.count is not None:
        return counted.count
    return None if counted.tokens is None else len(counted.tokens)


def _without_stream(members: _Object) -> bytes:
    return msgspec.json.encode(
        {name: value for name, value in members.items() if name not in ("stream", "stream_options")}
    )
