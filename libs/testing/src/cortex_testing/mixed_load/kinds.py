"""The kinds of request of the mixed load, by the official clients where these can make them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from cortex_testing.mixed_load.callers import CHATS, TEXTS, Caller, Callers
from cortex_testing.mixed_load.ledger import End, Seen
from cortex_testing.mixed_load.streams import OK, Streamed, code_of, leave, read

ON: dict[str, Any] = {"ignore_eos": True}
"""The engine goes on to `max_tokens`: so a client knows how many tokens a stream had that tells no usage."""
MOST_LEFT_TOKENS = 200
BROKEN_BODIES = (
    b"{",
    b"",
    b"[]",
    b"null",
    b'{"model":',
    b'{"model":"%s","messages":"x"}',
    b'{"model":"%s","messages":[]}',
    b'{"model":"%s","messages":[{"role":"user","content":"x"}],"max_tokens":-1}',
    b'{"model":"%s","messages":[{"role":"user","content":"x"}],"n":1000}',
    b'{"model":"%s","messages":[{"role":"user","content":"x"}],"stream":"yes"}',
    b'{"model":"%s","messages":[{"role":"user","content":"\xff"}]}',
)


class LooksWholeError(Exception):
    """An answer that a client would take for whole, and is not."""


Act = Callable[[Callers, Caller], Awaitable[Seen]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request.

    Args:
        weight: how often, among the others.
        exact: whether the records of this kind are as the client counted, one by one.
        limits: of its key.
    """

    act: Act
    weight: int
    exact: bool = True
    limits: tuple[tuple[str, int], ...] = ()


def _messages(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def _length(callers: Callers) -> int:
    return callers.random.choice((2, 4, 8, 16, 32))


def _told(caller: Caller, usage: Any) -> Seen:
    if usage is None:
        raise LooksWholeError(f"{caller.kind}: no usage")
    return Seen(caller.kind, End.ANSWERED, 200, usage.prompt_tokens, usage.completion_tokens)


async def chat(callers: Callers, caller: Caller) -> Seen:
    answer = await caller.openai.chat.completions.create(
        model=callers.model(),
        messages=_messages(callers.random.choice(CHATS)),
        max_tokens=_length(callers),
        extra_body=ON,
    )
    return _told(caller, answer.usage)


async def chat_twice(callers: Callers, caller: Caller) -> Seen:
    answer = await caller.openai.chat.completions.create(
        model=callers.model(),
        messages=_messages(callers.random.choice(CHATS)),
        max_tokens=_length(callers),
        n=2,
        extra_body=ON,
    )
    if len(answer.choices) != 2:
        raise LooksWholeError(f"{caller.kind}: {len(answer.choices)} choices")
    return _told(caller, answer.usage)


async def _stream(callers: Callers, caller: Caller, choices: int, *, usage: bool) -> tuple[Streamed, int, int]:
    text, length = callers.random.choice(CHATS), _length(callers)
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    if choices > 1:
        options["n"] = choices
    stream = await caller.openai.chat.completions.create(
        model=callers.model(), messages=_messages(text), max_tokens=length, stream=True, extra_body=ON, **options
    )
    async with stream:
        return await read(stream), callers.prompt_tokens[text], length


def _of_stream(caller: Caller, streamed: Streamed, choices: int, prompt: int) -> Seen | None:
    """What broke; None for a stream that is whole."""
    if streamed.broken:
        return Seen(caller.kind, End.BROKEN, 200, prompt, streamed.tokens, streamed.broken)
    if sorted(streamed.finished) != list(range(choices)):
        raise LooksWholeError(f"{caller.kind}: ended without an error, finished {streamed.finished}")
    return None


async def stream_usage(callers: Callers, caller: Caller) -> Seen:
    streamed, prompt, _ = await _stream(callers, caller, 1, usage=True)
    return _of_stream(caller, streamed, 1, prompt) or _told(caller, streamed.usage)


async def stream_twice(callers: Callers, caller: Caller) -> Seen:
    streamed, prompt, _ = await _stream(callers, caller, 2, usage=True)
    return _of_stream(caller, streamed, 2, prompt) or _told(caller, streamed.usage)


async def stream_silent(callers: Callers, caller: Caller) -> Seen:
    """Usage is not asked for: the client knows what its prompt costs, and how many tokens it has asked for."""
    streamed, prompt, length = await _stream(callers, caller, 1, usage=False)
    broken = _of_stream(caller, streamed, 1, prompt)
    if broken is None and (streamed.usage is not None or streamed.finished != {0: "length"}):
        raise LooksWholeError(f"{caller.kind}: usage {streamed.usage}, finished {streamed.finished}")
    return broken or Seen(caller.kind, End.ANSWERED, 200, prompt, length)


async def complete(callers: Callers, caller: Caller) -> Seen:
    answer = await caller.openai.completions.create(
        model=callers.model(),
        prompt=callers.random.choice(TEXTS),
        max_tokens=_length(callers),
        extra_body=ON,
    )
    return _told(caller, answer.usage)


async def complete_list(callers: Callers, caller: Caller) -> Seen:
    """A list of prompts in one request."""
    answer = await caller.openai.completions.create(
        model=callers.model(), prompt=list(TEXTS[:2]), max_tokens=_length(callers), extra_body=ON
    )
    if len(answer.choices) != 2:
        raise LooksWholeError(f"{caller.kind}: {len(answer.choices)} choices")
    return _told(caller, answer.usage)


async def complete_stream(callers: Callers, caller: Caller) -> Seen:
    text = callers.random.choice(TEXTS)
    stream = await caller.openai.completions.create(
        model=callers.model(),
        prompt=text,
        max_tokens=_length(callers),
        stream=True,
        stream_options={"include_usage": True},
        extra_body=ON,
    )
    async with stream:
        streamed = await read(stream)
    return _of_stream(caller, streamed, 1, callers.prompt_tokens[text]) or _told(caller, streamed.usage)


async def embed(callers: Callers, caller: Caller) -> Seen:
    answer = await caller.openai.embeddings.create(model=callers.embedder, input=list(TEXTS))
    if len(answer.data) != len(TEXTS):
        raise LooksWholeError(f"{caller.kind}: {len(answer.data)} vectors")
    return Seen(caller.kind, End.ANSWERED, 200, answer.usage.prompt_tokens)


async def respond(callers: Callers, caller: Caller) -> Seen:
    answer = await caller.openai.responses.create(
        model=callers.model(), input=callers.random.choice(CHATS), max_output_tokens=_length(callers)
    )
    if answer.usage is None or answer.status not in ("completed", "incomplete"):
        raise LooksWholeError(f"{caller.kind}: {answer.status}, {answer.usage}")
    return Seen(caller.kind, End.ANSWERED, 200, answer.usage.input_tokens, answer.usage.output_tokens)


async def message(callers: Callers, caller: Caller) -> Seen:
    answer = await caller.anthropic.messages.create(
        model=callers.model(), messages=_messages(callers.random.choice(CHATS)), max_tokens=_length(callers)
    )
    usage = answer.usage
    prompt = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return Seen(caller.kind, End.ANSWERED, 200, prompt, usage.output_tokens)


async def _post(caller: Caller, path: str, **given: Any) -> httpx2.Response:
    return await caller.http.post(f"{caller.url}{path}", headers=caller.headers, **given)


def _refused(caller: Caller, response: httpx2.Response) -> Seen:
    code = code_of(response.content)
    if "x-cortex-error-origin" not in response.headers:
        raise LooksWholeError(f"{caller.kind}: a refusal that does not say whose it is")
    return Seen(caller.kind, End.REFUSED, response.status_code, code=code)


async def tokenise(callers: Callers, caller: Caller) -> Seen:
    body = {"model": callers.model(), "prompt": callers.random.choice(CHATS)}
    response = await _post(caller, "/tokenize", json=body)
    if response.status_code != OK:
        return _refused(caller, response)
    if response.json()["count"] < 1:
        raise LooksWholeError(f"{caller.kind}: {response.text}")
    return Seen(caller.kind, End.ANSWERED, 200)


async def hang_up(callers: Callers, caller: Caller) -> Seen:
    """In the middle of a stream."""
    text = callers.random.choice(CHATS)
    body: dict[str, Any] = {"model": callers.model(), "messages": _messages(text)}
    body |= {"max_tokens": MOST_LEFT_TOKENS, "stream": True, **ON}
    cut = await leave(caller, "/v1/chat/completions", body, callers.random.randint(1, 40))
    if cut.status >= 400:
        return Seen(caller.kind, End.REFUSED, cut.status, code=cut.code)
    prompt = callers.prompt_tokens[text]
    if cut.code:
        return Seen(caller.kind, End.BROKEN, cut.status, prompt, cut.tokens, cut.code)
    if cut.ended:
        raise LooksWholeError(f"{caller.kind}: ended after {cut.tokens} tokens, without an error")
    return Seen(caller.kind, End.HUNG_UP, 200, prompt, cut.tokens)


async def hang_up_early(callers: Callers, caller: Caller) -> Seen:
    """While waiting for an answer that comes whole."""
    text = callers.random.choice(CHATS)
    body: dict[str, Any] = {"model": callers.model(), "messages": _messages(text)}
    body |= {"max_tokens": MOST_LEFT_TOKENS, **ON}
    steps: list[str] = []

    async def note(step: str, _info: dict[str, Any]) -> None:
        steps.append(step)

    try:
        async with asyncio.timeout(callers.random.uniform(0.2, 1.0)):
            response = await _post(caller, "/v1/chat/completions", json=body, extensions={"trace": note})
    except TimeoutError:
        sent = any(step.endswith("send_request_body.complete") for step in steps)
        return Seen(caller.kind, End.HUNG_UP if sent else End.UNSENT, prompt=callers.prompt_tokens[text])
    return _refused(caller, response) if response.status_code >= 400 else _told_json(caller, response)


def _told_json(caller: Caller, response: httpx2.Response) -> Seen:
    usage = response.json()["usage"]
    return Seen(caller.kind, End.ANSWERED, 200, usage["prompt_tokens"], usage["completion_tokens"])


async def malformed(callers: Callers, caller: Caller) -> Seen:
    body = callers.random.choice(BROKEN_BODIES)
    response = await _post(caller, "/v1/chat/completions", content=body.replace(b"%s", callers.model().encode()))
    if response.status_code < 400:
        raise LooksWholeError(f"{body!r} was answered")
    return _refused(caller, response)


async def stranger(callers: Callers, caller: Caller) -> Seen:
    """With a key that nobody has."""
    response = await caller.http.post(
        f"{caller.url}/v1/chat/completions",
        json={"model": callers.model(), "messages": _messages("x")},
        headers={"authorization": f"Bearer sk-cortex-nobody-{callers.random.random()}"},
    )
    if response.status_code not in (401, 503):
        raise LooksWholeError(f"{caller.kind}: {response.status_code}")
    return _refused(caller, response)


async def lost(_callers: Callers, caller: Caller) -> Seen:
    """For a model that there is not."""
    response = await _post(caller, "/v1/chat/completions", json={"model": "nowhere", "messages": _messages("x")})
    return _refused(caller, response)


KINDS: dict[str, Kind] = {
    "chat": Kind(chat, 6),
    "chat, n=2": Kind(chat_twice, 3),
    "stream": Kind(stream_silent, 6),
    "stream with usage": Kind(stream_usage, 6),
    "stream with usage, n=2": Kind(stream_twice, 3),
    "completion": Kind(complete, 3),
    "completion of a list": Kind(complete_list, 2),
    "completion stream": Kind(complete_stream, 2),
    "embedding": Kind(embed, 2),
    "response": Kind(respond, 2),
    "message": Kind(message, 2),
    "tokenise": Kind(tokenise, 2, exact=False),
    "hang-up in a stream": Kind(hang_up, 5, exact=False),
    "hang-up before an answer": Kind(hang_up_early, 3, exact=False),
    "malformed": Kind(malformed, 3, exact=False),
    "unknown model": Kind(lost, 1),
    "wrong key": Kind(stranger, 2, exact=False),
    "limited": Kind(chat, 4, limits=(("requests_per_minute", 10),)),
}
