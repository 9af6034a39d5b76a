"""Errors, timeouts and cancels."""

# pyright: basic
import httpx2

from cortex_testing.client_scenarios.clients import ASK, WORDS, Clients, Outcome, refusal


def wrong_key(c: Clients) -> Outcome:
    wrong = c.stranger()
    try:
        return refusal(wrong.chat)
    finally:
        wrong.close()


def wrong_model(c: Clients) -> Outcome:
    return refusal(lambda: c.chat(model="no-such-model"))


def empty_messages(c: Clients) -> Outcome:
    return refusal(lambda: c.chat(messages=[]))


def no_tokens(c: Clients) -> Outcome:
    return refusal(lambda: c.chat(max_tokens=0))


def no_choices(c: Clients) -> Outcome:
    return refusal(lambda: c.chat(n=0))


def too_long(c: Clients) -> Outcome:
    return refusal(lambda: c.chat(messages=[{"role": "user", "content": WORDS}]))


def wrong_type(c: Clients) -> Outcome:
    return refusal(lambda: c.chat(temperature="hot"))


def unknown_format(c: Clients) -> Outcome:
    return refusal(lambda: c.chat(response_format={"type": "rhyme"}))


def image_to_a_text_model(c: Clients) -> Outcome:
    dot = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": dot}}]
    return refusal(lambda: c.chat(messages=[{"role": "user", "content": content}]))


def usage_without_stream(c: Clients) -> Outcome:
    return refusal(lambda: c.chat(stream_options={"include_usage": True}))


def timeout(c: Clients) -> Outcome:
    client = c.openai.with_options(timeout=httpx2.Timeout(5, read=0.002))
    return refusal(
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


ALL = (
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
