"""Event streams that begin before their answer does, or end without it."""

from cortex_gateway.domain.dialects import anthropic_error_event, openai_error_event, responses_error_event
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.streams import DONE_EVENT
from cortex_gateway.ports import Headers, Reply

STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
PING = b": waiting\n\n"


async def ping(reply: Reply, headers: Headers) -> None:
    """A comment for a client that waits, which every client of event streams skips. The first one commits to a stream.

    Raises:
        ClientGoneError: the client takes nothing any more.
    """
    if not reply.started:
        await reply.start(200, [*STREAM_HEADERS, *headers])
    await reply.send(PING, more=True)


async def end_with(reply: Reply, path: str, error: ApiError) -> None:
    """End a stream that has begun with an error, in the shape of its API. Raises ClientGoneError."""
    await reply.send(error_tail(path, error), more=False)


def error_tail(path: str, error: ApiError) -> bytes:
    """What tells the clients of an API of an error at the end of a stream."""
    if path == "/v1/messages":
        return anthropic_error_event(error)
    if path == "/v1/responses":
        return responses_error_event(error, 0)
    return openai_error_event(error) + DONE_EVENT
