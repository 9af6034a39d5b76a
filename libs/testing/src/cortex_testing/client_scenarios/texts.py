"""Completions of texts by the OpenAI client."""

# pyright: basic
from cortex_testing.client_scenarios.clients import Clients, Outcome, usage_of


def text(c: Clients) -> Outcome:
    answer = c.text()
    [choice] = answer.choices
    return {
        "text": choice.text,
        "finish": choice.finish_reason,
        "usage": usage_of(answer.usage),
        "object": answer.object,
        "id": answer.id.partition("-")[0],
        "model": answer.model,
    }


def text_stream(c: Clients) -> Outcome:
    chunks = c.text(stream=True, stream_options={"include_usage": True})
    told = [chunk for chunk in chunks if chunk.usage is not None]
    return {
        "text": "".join(choice.text for chunk in chunks for choice in chunk.choices),
        "usage": [usage_of(chunk.usage) for chunk in told],
        "choices": [len(chunk.choices) for chunk in told],
    }


def text_stream_quiet(c: Clients) -> Outcome:
    chunks = c.text(stream=True)
    return {"usages": sum(chunk.usage is not None for chunk in chunks), "object": chunks[0].object}


def text_list(c: Clients) -> Outcome:
    answer = c.text(prompt=["Once upon a", "The"], n=2, max_tokens=3, extra_body={"ignore_eos": True}, temperature=0.5)
    return {"indexes": [choice.index for choice in answer.choices], "usage": usage_of(answer.usage)}


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


ALL = (
    text,
    text_stream,
    text_stream_quiet,
    text_list,
    text_logprobs,
    text_logprobs_stream,
    text_echo,
    text_echo_stream,
)
