"""Responses by the OpenAI client."""

# pyright: basic
from typing import Any

from cortex_testing.client_scenarios.clients import Clients, Outcome, refusal


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
    return refusal(
        lambda: client.responses.create(model=c.model, input="x", previous_response_id="resp_1", max_output_tokens=4)
    )


def responses_background(c: Clients) -> Outcome:
    client = c.openai
    return refusal(lambda: client.responses.create(model=c.model, input="x", background=True, max_output_tokens=4))


def responses_stored(c: Clients) -> Outcome:
    client = c.openai
    return {
        "retrieve": refusal(lambda: client.responses.retrieve("resp_1")),
        "cancel": refusal(lambda: client.responses.cancel("resp_1")),
        "delete": refusal(lambda: client.responses.delete("resp_1")),
    }


ALL = (
    responses,
    responses_stream,
    responses_helper,
    responses_previous,
    responses_background,
    responses_stored,
)
