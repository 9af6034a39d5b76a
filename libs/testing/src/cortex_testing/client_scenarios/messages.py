"""Messages by the Anthropic client."""

# pyright: basic
from typing import Any

from cortex_testing.client_scenarios.clients import ASK, WORDS, Clients, Outcome, refusal


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
    return refusal(lambda: client.messages.create(model=c.model, messages=[], max_tokens=4))


def messages_too_long(c: Clients) -> Outcome:
    client = c.anthropic
    long: Any = [{"role": "user", "content": WORDS}]
    return refusal(lambda: client.messages.create(model=c.model, messages=long, max_tokens=4))


def messages_wrong_key(c: Clients) -> Outcome:
    wrong = c.stranger()
    try:
        return refusal(lambda: wrong.anthropic.messages.create(model=c.model, messages=ASK, max_tokens=4))
    finally:
        wrong.close()


ALL = (
    messages,
    messages_stream,
    messages_system,
    count_tokens,
    messages_empty,
    messages_too_long,
    messages_wrong_key,
)
