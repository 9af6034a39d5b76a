"""Events as they happen, straight from NATS."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from cortex_cli.errors import CliError, not_running

_CONNECT_S = 5
_QUEUE = 10_000


class EventStream:
    """A live subscription; what happens while NATS is away is not seen."""

    def __init__(self, queue: asyncio.Queue[Msg]) -> None:
        self._queue = queue

    async def next(self) -> tuple[str, bytes]:
        """Subject and body of the next event; waits for ever."""
        message = await self._queue.get()
        return message.subject, message.data


@asynccontextmanager
async def event_stream(url: str, subjects: Sequence[str]) -> AsyncGenerator[EventStream]:
    """Subscribe for the body; returns when the server has confirmed the subscriptions.

    Raises:
        CliError: no server there, wrong credentials, or not a subject.
    """
    queue: asyncio.Queue[Msg] = asyncio.Queue(_QUEUE)
    client = await _connect(url)
    try:
        for subject in subjects:
            await client.subscribe(subject, cb=queue.put)
        await client.flush(timeout=_CONNECT_S)
        yield EventStream(queue)
    except NatsError as error:
        raise CliError(f"NATS refuses: {error}.") from error
    finally:
        await client.close()


async def _connect(url: str) -> Client:
    try:
        # With reconnecting on, nats-py would try for ever to reach a server that was never there.
        first = await nats.connect(url, connect_timeout=_CONNECT_S, allow_reconnect=False, error_cb=_ignore)
        await first.close()
        return await nats.connect(
            url,
            name="cortex events",
            connect_timeout=_CONNECT_S,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=5,
            error_cb=_ignore,
        )
    except (OSError, TimeoutError, NatsError) as error:
        if "authorization" in str(error).lower():
            raise CliError("NATS does not accept the user or the password of CORTEX_NATS_URL.") from error
        raise not_running() from error


async def _ignore(error: Exception) -> None:
    """Attempts raise by themselves; reconnecting goes on by itself."""
