"""Asks an engine how many tokens a prompt had, when the client left before the engine said so."""

from collections.abc import Mapping

import msgspec

from cortex_contracts.enums import EngineType
from cortex_gateway.domain.routing import Target
from cortex_gateway.ports import UpstreamClient, UpstreamError, UpstreamRequest
from cortex_kit.logging import get_logger

log = get_logger()

MAX_ANSWER_BYTES = 16 * 1024 * 1024
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
            question = counting_question(target.engine_type, upstream_path, body)
            return None if question is None else await self._ask(target, *question)
        except (UpstreamError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.info("prompt_not_counted", replica_id=target.replica_id, error=str(error))
            return None

    async def _ask(self, target: Target, path: str, body: bytes) -> int | None:
        request = UpstreamRequest(path, body, self._timeout_s, self._timeout_s)
        response = await self._client.post(target.endpoint, request)
        try:
            answer = await response.read_all(MAX_ANSWER_BYTES)
        finally:
            response.close()
        return read_count(answer) if response.status == 200 else None


def counting_question(engine_type: EngineType, upstream_path: str, body: bytes) -> tuple[str, bytes] | None:
    """Path and body of the request that counts a prompt, or None when there is no way to ask.

    Raises:
        msgspec.DecodeError: the body is not a JSON object.
    """
    members = msgspec.json.decode(body, type=_Object)
    if "messages" in members and engine_type is EngineType.LLAMACPP:
        return "/v1/chat/completions/input_tokens", _without_stream(members)
    if "messages" in members:
        kept = ("model", "messages", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt")
        return "/tokenize", msgspec.json.encode({name: members[name] for name in kept if name in members})
    prompt = members.get("prompt", members.get("input"))
    if prompt is None or not bytes(prompt).startswith(b'"'):
        return None
    if engine_type is EngineType.LLAMACPP:
        add_special = {"content": prompt, "add_special": True}
        return "/tokenize", msgspec.json.encode(add_special)
    model: Mapping[str, msgspec.Raw] = {"model": members["model"]} if "model" in members else {}
    return "/tokenize", msgspec.json.encode({**model, "prompt": prompt})


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
