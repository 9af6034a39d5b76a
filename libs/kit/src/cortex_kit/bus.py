"""One NATS connection per service that never gives up (settings and reasons: docs/adr/0002)."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import nats
from nats.aio.client import Client
from nats.errors import ConnectionClosedError, NoRespondersError
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from pydantic import SecretStr, ValidationError

from cortex_contracts import permissions
from cortex_contracts.base import ContractModel
from cortex_contracts.rpc import RpcReply
from cortex_contracts.streams import BucketSpec, ConsumerSpec
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger

log = get_logger()
ReplyT = TypeVar("ReplyT", bound=ContractModel)

RECONNECT_WAIT_S = 1.0
PING_INTERVAL_S = 5
MAX_OUTSTANDING_PINGS = 2
API_TIMEOUT_S = 5.0


def split_url(url: SecretStr) -> tuple[str, str | None, str | None]:
    """Server address without credentials, user, password. nats-py would show an inline password in its errors."""
    parts = urlsplit(url.get_secret_value())
    address = f"{parts.scheme}://{parts.hostname}:{parts.port or 4222}"
    user = unquote(parts.username) if parts.username else None
    return address, user, unquote(parts.password) if parts.password else None


def inbox_prefix(user: str | None) -> bytes:
    """Replies travel under a prefix of the user's own, so that no other user can read them."""
    return (permissions.inbox_prefix(user) if user else "_INBOX").encode()


class Bus:
    """Owns one nats-py connection. A closed connection ends the process: a supervisor starts it anew."""

    def __init__(self, url: SecretStr, *, name: str) -> None:
        self._url = url
        self._name = name
        self._client: Client | None = None
        self._connected = asyncio.Event()
        self._reconnect_callbacks: list[Callable[[], Awaitable[None]]] = []
        self._closing = False
        self._callback_tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Connect, however long that takes, then stay until cancelled."""
        address, user, password = split_url(self._url)
        self._client = await nats.connect(
            address,
            name=self._name,
            user=user,
            password=password,
            inbox_prefix=inbox_prefix(user),
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_WAIT_S,
            ping_interval=PING_INTERVAL_S,
            max_outstanding_pings=MAX_OUTSTANDING_PINGS,
            connect_timeout=3,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
        )
        self._connected.set()
        log.info("nats_connected")
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        """Wait, without limit, until the server is there."""
        await self._connected.wait()

    @property
    def nc(self) -> Client:
        """Raises TransientError before the first connection."""
        if self._client is None:
            raise TransientError("NATS has not been reached yet")
        return self._client

    @property
    def js(self) -> JetStreamContext:
        """Raises TransientError before the first connection."""
        return self.nc.jetstream(timeout=API_TIMEOUT_S)

    def on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call back after every re-connection; the store may have been wiped meanwhile."""
        self._reconnect_callbacks.append(callback)

    async def request(self, subject: str, message: ContractModel, reply: type[ReplyT], *, timeout: float) -> ReplyT:
        """Request-reply.

        Raises:
            DomainError: the responder refused; its code and message.
            TransientError: nobody listens, no answer in time, or NATS is away.
        """
        try:
            answer = await self.nc.request(subject, message.model_dump_json().encode(), timeout=timeout)
            parsed = RpcReply[reply].model_validate_json(answer.data)
        except (NatsError, OSError) as error:
            raise TransientError(f"no answer on {subject}: {type(error).__name__}") from error
        except ValidationError as error:
            raise TransientError(f"an answer on {subject} could not be read") from error
        if parsed.error is not None:
            raise DomainError(parsed.error.code, parsed.error.message, status=422)
        if parsed.result is None:
            raise TransientError(f"an empty answer on {subject}")
        return parsed.result

    async def wait_provisioned(
        self, *, buckets: Sequence[BucketSpec] = (), consumers: Sequence[ConsumerSpec] = ()
    ) -> None:
        """Wait, without limit, until the registry has provisioned what the caller needs."""
        announced = False
        while True:
            await self.wait_connected()
            missing = await self._missing(buckets, consumers)
            if not missing:
                return
            if not announced:
                log.info("waiting_for_provisioning", missing=missing)
                announced = True
            await asyncio.sleep(0.1)

    async def _missing(self, buckets: Sequence[BucketSpec], consumers: Sequence[ConsumerSpec]) -> list[str]:
        missing: list[str] = []
        try:
            for bucket in buckets:
                try:
                    await self.js.stream_info(f"KV_{bucket.name}")
                except NotFoundError:
                    missing.append(bucket.name)
            for consumer in consumers:
                try:
                    await self.js.consumer_info(consumer.stream, consumer.durable)
                except NotFoundError:
                    missing.append(consumer.durable)
        except (NatsError, OSError) as error:
            missing.append(type(error).__name__)
        return missing

    async def close(self) -> None:
        """Flush what is pending, then close."""
        self._closing = True
        client, self._client = self._client, None
        if client is None or client.is_closed:
            return
        try:
            async with asyncio.timeout(2):
                await client.flush(timeout=1)
        except (NatsError, OSError, TimeoutError):
            log.warning("nats_flush_failed")
        try:
            async with asyncio.timeout(2):
                await client.close()
        except (NatsError, OSError, TimeoutError, RuntimeError):
            # RuntimeError: uvloop's, when there is still something to be sent on a connection that is gone.
            log.warning("nats_close_failed")

    def readiness(self) -> str | None:
        return None if self.connected else "NATS is not connected"

    async def _on_error(self, error: Exception) -> None:
        if not isinstance(error, (NatsTimeoutError, ConnectionClosedError, NoRespondersError)):
            log.warning("nats_error", error=f"{type(error).__name__}: {error}")

    async def _on_disconnected(self) -> None:
        self._connected.clear()
        if not self._closing:
            log.warning("nats_disconnected")

    async def _on_reconnected(self) -> None:
        self._connected.set()
        log.info("nats_reconnected")
        for callback in self._reconnect_callbacks:
            task = asyncio.ensure_future(callback())
            self._callback_tasks.add(task)
            task.add_done_callback(self._reap)

    def _reap(self, task: "asyncio.Task[None]") -> None:
        self._callback_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("nats_reconnect_callback_failed", error=repr(error))

    async def _on_closed(self) -> None:
        if self._closing:
            return
        log.error("nats_connection_closed")
        os._exit(1)
