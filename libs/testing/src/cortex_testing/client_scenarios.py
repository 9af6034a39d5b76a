"""What users do with the official clients, as data: each scenario gives an outcome that can be compared.

The same list runs against an engine and against a gateway before that engine. Outcomes leave out what no two requests
share: ids, times, and how much of a prompt came from a cache.
"""

# pyright: basic
# The clients answer with unions of dozens of models; every scenario reads the one it asked for, and fails where it is another.
import base64
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anthropic
import httpx2
import openai

Outcome = dict[str, Any]
WORDS = "word " * 6000
ASK: list[Any] = [{"role": "user", "content": "Say hello to Anna."}]
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": WEATHER}}


class Clients:
    """The official clients at one address.

    Args:
        address: of an engine or a gateway, without /v1.
        key: what that takes.
        model: answers; `embedder` embeds and is at `embedder_address` when that is another one.
        extra: members that make an engine's answers repeatable.
    """

    def __init__(
        self,
        address: str,
        key: str,
        model: str,
        *,
        embedder: tuple[str, str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.address = address
        self.model = model
        self.extra = dict(extra or {})
        self.http = httpx2.Client(verify=False)
        self.openai = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, http_client=self.http)
        # Its own header for keys is not what engines take, so both are sent.
        self.anthropic = anthropic.Anthropic(
            base_url=address,
            api_key=key,
            max_retries=0,
            default_headers={"authorization": f"Bearer {key}"},
        )
        where, embedder_key, self.embedder = embedder or (address, key, model)
        self.embedding = openai.OpenAI(
            base_url=f"{where}/v1", api_key=embedder_key, max_retries=0, http_client=self.http
        )

    def close(self) -> None:
        self.http.close()
        self.anthropic.close()

    def stranger(self) -> "Clients":
        """The same with a key that nobody has."""
        return Clients(self.address, "sk-wrong-key-of-nobody", self.model)

    def chat(self, **fields: Any) -> Any:
        given = {"model": self.model, "messages": ASK, "temperature": 0, "max_tokens": 12} | fields
        given["extra_body"] = {**self.extra, **given.get("extra_body", {})}
        answer = self.openai.chat.completions.create(**given)
        return list(answer) if given.get("stream") else answer

    def text(self, **fields: Any) -> Any:
        given = {"model": self.model, "prompt": "Once upon a", "temperature": 0, "max_tokens": 5} | fields
        given["extra_body"] = {**self.extra, **given.get("extra_body", {})}
        answer = self.openai.completions.create(**given)
        return list(answer) if given.get("stream") else answer


def _usage(usage: Any) -> Outcome | None:
    if usage is None:
        return None
    return {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens, "total": usage.total_tokens}


def _refusal(act: Callable[[], object]) -> Outcome:
    """How the client tells of an error: the class it raises, and what of the body it understood."""
    try:
        given = act()
    except openai.APIStatusError as error:
        return {
            "raised": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "type": error.type,
            "message": bool(error.message),
        }
    except anthropic.APIStatusError as error:
        body: Any = error.body
        shape = body.get("type") if isinstance(body, dict) else None
        detail = body.get("error") if isinstance(body, dict) else None
        kind = detail.get("type") if isinstance(detail, dict) else None
        return {"raised": type(error).__name__, "status": error.status_code, "shape": shape, "type": kind}
    except (openai.APITimeoutError, anthropic.APITimeoutError) as error:
        return {"raised": type(error).__name__}
    return {"raised": None, "given": type(given).__name__}


# OpenAI: chats


def chat(c: Clients) -> Outcome:
    answer = c.chat()
    [choice] = answer.choices
    return {
        "text": choice.message.content,
        "finish": choice.finish_reason,
        "usage": _usage(answer.usage),
        "model": answer.model,
        "object": answer.object,
    }


def chat_stream(c: Clients) -> Outcome:
    chunks = c.chat(stream=True)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    return {
        "text": "".join(choice.delta.content or "" for choice in choices),
        "finish": [choice.finish_reason for choice in choices if choice.finish_reason],
        "usages": sum(chunk.usage is not None for chunk in chunks),
        "role": choices[0].delta.role,
        "object": chunks[0].object,
        "models": sorted({chunk.model for chunk in chunks}),
    }


def chat_stream_usage(c: Clients) -> Outcome:
    chunks = c.chat(stream=True, stream_options={"include_usage": True})
    told = [chunk for chunk in chunks if chunk.usage is not None]
    return {"usage": [_usage(chunk.usage) for chunk in told], "choices": [len(chunk.choices) for chunk in told]}


def chat_several(c: Clients) -> Outcome:
    answer = c.chat(n=2, extra_body={"ignore_eos": True}, max_tokens=6, temperature=0.5)
    return {
        "choices": [
            (choice.index, choice.finish_reason, isinstance(choice.message.content, str)) for choice in answer.choices
        ],
        "roles": [choice.message.role for choice in answer.choices],
        "usage": _usage(answer.usage),
    }


def chat_several_stream(c: Clients) -> Outcome:
    quiet = {"ignore_eos": True}
    chunks = c.chat(
        n=2, stream=True, stream_options={"include_usage": True}, extra_body=quiet, max_tokens=6, temperature=0.5
    )
    told = [chunk.usage for chunk in chunks if chunk.usage is not None]
    finished = sorted(choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason)
    return {"usage": [_usage(usage) for usage in told], "finished": finished}


def chat_stop(c: Clients) -> Outcome:
    whole = c.chat(max_tokens=20).choices[0].message.content
    word = next((part for part in whole.split() if part.isalpha()), whole[1:3])
    choice = c.chat(max_tokens=20, stop=[word]).choices[0]
    return {"cut": word not in (choice.message.content or ""), "finish": choice.finish_reason}


def chat_logprobs(c: Clients) -> Outcome:
    answer = c.chat(logprobs=True, top_logprobs=2, max_tokens=4, extra_body={"ignore_eos": True})
    content = answer.choices[0].logprobs.content
    return {
        "tokens": [entry.token for entry in content],
        "tops": [len(entry.top_logprobs) for entry in content],
        "probable": all(entry.logprob <= 0 for entry in content),
    }


def chat_json_schema(c: Clients) -> Outcome:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}}
    choice = c.chat(response_format=form, max_tokens=40).choices[0]
    return {"text": choice.message.content, "finish": choice.finish_reason}


def chat_tool_named(c: Clients) -> Outcome:
    choice = c.chat(
        tools=[TOOL], tool_choice={"type": "function", "function": {"name": "weather"}}, max_tokens=60
    ).choices[0]
    calls = choice.message.tool_calls or []
    return {
        "names": [call.function.name for call in calls],
        "arguments": [type(call.function.arguments).__name__ for call in calls],
    }


def chat_tool_auto(c: Clients) -> Outcome:
    return _refusal(lambda: c.chat(tools=[TOOL], tool_choice="auto"))


def chat_max_completion_tokens(c: Clients) -> Outcome:
    answer = c.chat(max_tokens=openai.omit, max_completion_tokens=3, extra_body={"ignore_eos": True})
    return {"usage": _usage(answer.usage), "finish": answer.choices[0].finish_reason}


def chat_many_tokens(c: Clients) -> Outcome:
    """More than the context holds: as many as there is room for."""

    def ask() -> object:
        return c.chat(max_tokens=100_000, stop=["\n", ".", "!"])

    return _refusal(ask)


# OpenAI: texts


def text(c: Clients) -> Outcome:
    answer = c.text()
    [choice] = answer.choices
    return {
        "text": choice.text,
        "finish": choice.finish_reason,
        "usage": _usage(answer.usage),
        "object": answer.object,
        "id": answer.id.partition("-")[0],
        "model": answer.model,
    }


def text_stream(c: Clients) -> Outcome:
    chunks = c.text(stream=True, stream_options={"include_usage": True})
    told = [chunk for chunk in chunks if chunk.usage is not None]
    return {
        "text": "".join(choice.text for chunk in chunks for choice in chunk.choices),
        "usage": [_usage(chunk.usage) for chunk in told],
        "choices": [len(chunk.choices) for chunk in told],
    }


def text_stream_quiet(c: Clients) -> Outcome:
    chunks = c.text(stream=True)
    return {"usages": sum(chunk.usage is not None for chunk in chunks), "object": chunks[0].object}


def text_list(c: Clients) -> Outcome:
    answer = c.text(prompt=["Once upon a", "The"], n=2, max_tokens=3, extra_body={"ignore_eos": True}, temperature=0.5)
    return {"indexes": [choice.index for choice in answer.choices], "usage": _usage(answer.usage)}


def text_logprobs(c: Clients) -> Outcome:
    answer = c.text(logprobs=2, max_tokens=3, extra_body={"ignore_eos": True})
    found = answer.choices[0].logprobs
    if found is None or found.tokens is None:
        return {"legacy": False}
    return {
        "legacy": True,
        "tokens": found.tokens,
        "offsets": len(found.text_offset or ()),
        "tops": [2 <= len(tops) <= 3 for tops in found.top_logprobs or ()],
        "probable": all(value <= 0 for value in found.token_logprobs or ()),
    }


def text_logprobs_stream(c: Clients) -> Outcome:
    chunks = c.text(logprobs=1, max_tokens=3, stream=True, extra_body={"ignore_eos": True})
    found = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs is not None]
    return {"tokens": [token for one in found for token in one.tokens or ()]}


def text_echo(c: Clients) -> Outcome:
    answer = c.text(echo=True, max_tokens=2)
    return {"echoed": answer.choices[0].text.startswith("Once upon a")}


def text_echo_stream(c: Clients) -> Outcome:
    chunks = c.text(echo=True, max_tokens=2, stream=True)
    joined = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    return {"echoed": joined.startswith("Once upon a"), "once": joined.count("Once upon a") == 1}


# OpenAI: embeddings


def embeddings(c: Clients) -> Outcome:
    client = c.embedding
    answer = client.embeddings.create(model=c.embedder or c.model, input=["a cat", "a dog"])
    one = client.embeddings.create(model=c.embedder or c.model, input="a cat", encoding_format="base64")
    raw: Any = one.data[0].embedding
    decoded = (
        struct.unpack(f"<{len(base64.b64decode(raw)) // 4}f", base64.b64decode(raw)) if isinstance(raw, str) else raw
    )
    return {
        "indexes": [entry.index for entry in answer.data],
        "sizes": [len(entry.embedding) for entry in answer.data],
        "same": max(abs(left - right) for left, right in zip(answer.data[0].embedding, decoded, strict=True)) < 0.01,
        "usage": (answer.usage.prompt_tokens, answer.usage.total_tokens),
        "model": answer.model,
    }


def embeddings_dimensions(c: Clients) -> Outcome:
    client = c.embedding
    return _refusal(lambda: client.embeddings.create(model=c.embedder or c.model, input="a", dimensions=4))


def embeddings_of_nothing(c: Clients) -> Outcome:
    client = c.embedding
    return _refusal(lambda: client.embeddings.create(model=c.embedder or c.model, input=[]))


def embeddings_of_a_chat_model(c: Clients) -> Outcome:
    client = c.openai
    return _refusal(lambda: client.embeddings.create(model=c.model, input="a"))


# OpenAI: responses


def responses(c: Clients) -> Outcome:
    client = c.openai
    answer = client.responses.create(
        model=c.model, input="Say hello to Anna.", max_output_tokens=8, temperature=0, extra_body=dict(c.extra)
    )
    assert answer.usage is not None
    return {
        "text": answer.output_text,
        "status": answer.status,
        "cut": answer.incomplete_details.reason if answer.incomplete_details else None,
        "usage": (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens),
        "object": answer.object,
        "model": answer.model,
    }


def responses_stream(c: Clients) -> Outcome:
    client = c.openai
    events = list(
        client.responses.create(
            model=c.model, input="Say hello to Anna.", max_output_tokens=8, stream=True, extra_body=dict(c.extra)
        )
    )
    last: Any = events[-1]
    return {
        "first": events[0].type,
        "last": last.type,
        "numbered": [getattr(event, "sequence_number", None) for event in events] == list(range(len(events))),
        "output_tokens": last.response.usage.output_tokens,
        "status": last.response.status,
    }


def responses_helper(c: Clients) -> Outcome:
    """The client's own accumulation of events."""
    client = c.openai
    try:
        with client.responses.stream(model=c.model, input="Say hello.", max_output_tokens=8) as stream:
            for _ in stream:
                pass
            return {"final": bool(stream.get_final_response().id)}
    except (AttributeError, TypeError, RuntimeError, IndexError) as error:
        return {"final": type(error).__name__}


def responses_previous(c: Clients) -> Outcome:
    client = c.openai
    return _refusal(
        lambda: client.responses.create(model=c.model, input="x", previous_response_id="resp_1", max_output_tokens=4)
    )


def responses_background(c: Clients) -> Outcome:
    client = c.openai
    return _refusal(lambda: client.responses.create(model=c.model, input="x", background=True, max_output_tokens=4))


def responses_stored(c: Clients) -> Outcome:
    client = c.openai
    return {
        "retrieve": _refusal(lambda: client.responses.retrieve("resp_1")),
        "cancel": _refusal(lambda: client.responses.cancel("resp_1")),
        "delete": _refusal(lambda: client.responses.delete("resp_1")),
    }


# Anthropic


def greedy(c: Clients) -> dict[str, object]:
    return {"temperature": 0, **c.extra}


def messages(c: Clients) -> Outcome:
    client = c.anthropic
    answer = client.messages.create(model=c.model, messages=ASK, max_tokens=8, extra_body=greedy(c))
    usage = answer.usage
    return {
        "text": [getattr(block, "text", None) for block in answer.content],
        "stop": answer.stop_reason,
        "input": usage.input_tokens + (usage.cache_read_input_tokens or 0),
        "output": usage.output_tokens,
        "model": answer.model,
        "type": answer.type,
    }


def messages_stream(c: Clients) -> Outcome:
    with (
        c.anthropic.messages.stream(model=c.model, messages=ASK, max_tokens=8, extra_body=greedy(c)) as stream,
    ):
        kinds = {event.type for event in stream}
        final = stream.get_final_message()
    usage = final.usage
    return {
        "text": [getattr(block, "text", None) for block in final.content],
        "stop": final.stop_reason,
        "input": usage.input_tokens + (usage.cache_read_input_tokens or 0),
        "output": usage.output_tokens,
        "ends": {"message_start", "message_delta", "message_stop"} <= kinds,
        "model": final.model,
    }


def messages_system(c: Clients) -> Outcome:
    client = c.anthropic
    answer = client.messages.create(model=c.model, system="Be brief.", messages=ASK, max_tokens=4, extra_body=greedy(c))
    return {"stop": answer.stop_reason, "output": answer.usage.output_tokens}


def count_tokens(c: Clients) -> Outcome:
    client = c.anthropic
    return {"tokens": client.messages.count_tokens(model=c.model, messages=ASK).input_tokens}


def messages_empty(c: Clients) -> Outcome:
    client = c.anthropic
    return _refusal(lambda: client.messages.create(model=c.model, messages=[], max_tokens=4))


def messages_too_long(c: Clients) -> Outcome:
    client = c.anthropic
    long: Any = [{"role": "user", "content": WORDS}]
    return _refusal(lambda: client.messages.create(model=c.model, messages=long, max_tokens=4))


def messages_wrong_key(c: Clients) -> Outcome:
    wrong = c.stranger()
    try:
        return _refusal(lambda: wrong.anthropic.messages.create(model=c.model, messages=ASK, max_tokens=4))
    finally:
        wrong.close()


# Errors, timeouts, cancels


def wrong_key(c: Clients) -> Outcome:
    wrong = c.stranger()
    try:
        return _refusal(wrong.chat)
    finally:
        wrong.close()


def wrong_model(c: Clients) -> Outcome:
    return _refusal(lambda: c.chat(model="no-such-model"))


def empty_messages(c: Clients) -> Outcome:
    return _refusal(lambda: c.chat(messages=[]))


def no_tokens(c: Clients) -> Outcome:
    return _refusal(lambda: c.chat(max_tokens=0))


def no_choices(c: Clients) -> Outcome:
    return _refusal(lambda: c.chat(n=0))


def too_long(c: Clients) -> Outcome:
    return _refusal(lambda: c.chat(messages=[{"role": "user", "content": WORDS}]))


def wrong_type(c: Clients) -> Outcome:
    return _refusal(lambda: c.chat(temperature="hot"))


def unknown_format(c: Clients) -> Outcome:
    return _refusal(lambda: c.chat(response_format={"type": "rhyme"}))


def image_to_a_text_model(c: Clients) -> Outcome:
    dot = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": dot}}]
    return _refusal(lambda: c.chat(messages=[{"role": "user", "content": content}]))


def usage_without_stream(c: Clients) -> Outcome:
    return _refusal(lambda: c.chat(stream_options={"include_usage": True}))


def timeout(c: Clients) -> Outcome:
    client = c.openai.with_options(timeout=httpx2.Timeout(5, read=0.002))
    return _refusal(
        lambda: client.chat.completions.create(
            model=c.model, messages=ASK, max_tokens=200, extra_body={"ignore_eos": True}
        )
    )


def cancel(c: Clients) -> Outcome:
    """A client that leaves a stream early, and asks again."""
    client = c.openai
    stream = client.chat.completions.create(
        model=c.model, messages=ASK, max_tokens=200, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    return {"again": c.chat(max_tokens=2).choices[0].finish_reason}


SCENARIOS: Mapping[str, Callable[[Clients], Outcome]] = {
    scenario.__name__: scenario
    for scenario in (
        chat,
        chat_stream,
        chat_stream_usage,
        chat_several,
        chat_several_stream,
        chat_stop,
        chat_logprobs,
        chat_json_schema,
        chat_tool_named,
        chat_tool_auto,
        chat_max_completion_tokens,
        chat_many_tokens,
        text,
        text_stream,
        text_stream_quiet,
        text_list,
        text_logprobs,
        text_logprobs_stream,
        text_echo,
        text_echo_stream,
        embeddings,
        embeddings_dimensions,
        embeddings_of_nothing,
        embeddings_of_a_chat_model,
        responses,
        responses_stream,
        responses_helper,
        responses_previous,
        responses_background,
        responses_stored,
        messages,
        messages_stream,
        messages_system,
        count_tokens,
        messages_empty,
        messages_too_long,
        messages_wrong_key,
        wrong_key,
        wrong_model,
        empty_messages,
        no_tokens,
        no_choices,
        too_long,
        wrong_type,
        unknown_format,
        image_to_a_text_model,
        usage_without_stream,
        timeout,
        cancel,
    )
}


def differences(direct: Outcome, through: Outcome) -> dict[str, tuple[object, object]]:
    """What differs, member by member: what the engine gave, what the gateway gave."""
    names: Iterable[str] = direct.keys() | through.keys()
    return {
        name: (direct.get(name), through.get(name)) for name in sorted(names) if direct.get(name) != through.get(name)
    }
