"""Reading streams to their end, or to the moment when the client has had enough."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import openai
from openai.types.chat import ChatCompletionChunk

from cortex_testing.mixed_load.callers import Caller

OK = 200


@dataclass
class Streamed:
    """What came of a stream of the official client."""

    tokens: int = 0
    """Events with choices in them, without those that only name the role: so the gateway counts what it has sent."""
    finished: dict[int, str] = field(default_factory=dict[int, str])
    """Why each choice ended."""
    usage: Any = None
    broken: str = ""
    """Code of the error event that ended it."""


async def read(stream: AsyncIterator[Any]) -> Streamed:
    """All of it. An error event is no exception here."""
    streamed = Streamed()
    try:
        async for chunk in stream:
            streamed.tokens += bool(chunk.choices) and not _is_role(chunk)
            streamed.usage = chunk.usage or streamed.usage
            for choice in chunk.choices:
                if choice.finish_reason is not None:
                    streamed.finished[choice.index] = choice.finish_reason
    except (openai.APIStatusError, openai.APIConnectionError):
        raise
    except openai.APIError as error:
        streamed.broken = f"{error.code}"
    return streamed


def _is_role(chunk: Any) -> bool:
    return isinstance(chunk, ChatCompletionChunk) and any(one.delta.role is not None for one in chunk.choices)


@dataclass(frozen=True, slots=True)
class Cut:
    """A stream that the client left."""

    status: int
    tokens: int = 0
    """Events with text that it had read by then."""
    ended: bool = False
    """It had ended before."""
    code: str = ""


async def leave(caller: Caller, path: str, body: dict[str, Any], after: int) -> Cut:
    """Hang up after so many events with text."""
    tokens = 0
    async with caller.http.stream("POST", f"{caller.url}{path}", json=body, headers=caller.headers) as response:
        if response.status_code != OK:
            return Cut(response.status_code, code=code_of(await response.aread()))
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                return Cut(200, tokens, ended=True)
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                return Cut(200, tokens, ended=True, code=f"{event['error']['code']}")
            tokens += any(choice["delta"].get("content") for choice in event["choices"])
            if tokens >= after:
                break
    return Cut(200, tokens)


def code_of(body: bytes) -> str:
    """The code of an error object, the type of an Anthropic one without a code; raises ValueError when it is neither."""
    try:
        whole = json.loads(body)
        error = whole["error"]
        is_anthropic = whole.get("type") == "error"
        code = error.get("code", error["type"]) if is_anthropic else (error["param"], error["code"])[1]
        if not (error["message"] and error["type"]):
            raise ValueError(f"an error without message or type: {body[:300]!r}")
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"no error object: {body[:300]!r}") from error
    return f"{code}"
