"""One client connection: requests one after the other, each handled by a coroutine, under limits and deadlines."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from cortex_gateway.domain import errors
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.entrypoints.bodies import IncomingBody
from cortex_gateway.entrypoints.client_line import ClientLine
from cortex_gateway.entrypoints.heads import END_OF_HEAD, PartialHead
from cortex_gateway.entrypoints.refusals import (
    as_api_error,
    bodies_full,
    head_too_long,
    refusal,
    too_many_connections,
)
from cortex_gateway.entrypoints.reply import ClientReply
from cortex_gateway.ports import ClientGoneError, Request
from cortex_gateway.wire.fields import BadMessageError
from cortex_gateway.wire.repeats import Repeats
from cortex_gateway.wire.requests import RequestHead
from cortex_kit.logging import get_logger

if TYPE_CHECKING:
    from cortex_gateway.entrypoints.server import DirectPath, HttpServer

log = get_logger()

MAX_PIPELINED_BYTES = 64 * 1024
MAX_UNREAD_BODY_BYTES = 64 * 1024
MAX_POSTPONED_BYTES = 64 * 1024
"""A body that is longer is waited for by whoever handles the request: its sender may be told at once that it is in vain."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientConnection(ClientLine):
    """Reads one request at a time; what a client sends ahead waits, unread.

    A client that closes its side, even for sending only, is taken as gone: engines are too dear to work for nobody.
    """

    __slots__ = (
        "_ahead",
        "_asks",
        "_body",
        "_busy",
        "_head_due",
        "_held",
        "_idle_waiter",
        "_is_last",
        "_job",
        "_known",
        "_paid",
        "_peer",
        "_postponed",
        "_repeats",
        "_reply",
        "_request",
        "_served",
        "_whole",
        "speaks_chunks",
        "task",
    )

    def __init__(self, server: "HttpServer") -> None:
        super().__init__(server)
        self._held: PartialHead | None = None
        self._repeats = Repeats()
        self._known: RequestHead | None = None
        """The head that repetitions are of."""
        self._ahead = b""
        """What came after the request that is being handled."""
        self._body: IncomingBody | None = None
        self._whole: bytes | None = None
        self._request: Request | None = None
        self._reply: ClientReply | None = None
        self._job: Callable[[], Awaitable[None]] | None = None
        """What goes on with a request that the direct path began."""
        self._idle_waiter: asyncio.Future[None] | None = None
        self._busy = self._head_due = self._asks = self._is_last = self._postponed = False
        self._served = self._paid = 0
        self._peer = ""
        self.task: asyncio.Task[None] | None = None
        self.speaks_chunks = True

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = cast("tuple[str, int] | None", transport.get_extra_info("peername"))
        self._peer = peer[0] if peer else ""
        if self._server.admit(self):
            self._timer.arm(self._server.options.keep_alive_s)
        else:
            self._refuse(too_many_connections())

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._timer.cancel()
        self._server.forget(self)
        self._client_left()
        if self._postponed:
            self._pay_back()
        for waiter in (self._idle_waiter, self._drain_waiter):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def eof_received(self) -> None:
        if self._busy:
            self._client_left()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._discard(len(data))
        elif not self._busy:
            self._read_head(data)
        elif self._body is not None and not self._body.complete:
            self._feed(self._body, data)
        else:
            self._keep(data)

    # Requests

    def _read_head(self, data: bytes) -> None:
        server = self._server
        if self._known is not None and self._held is None:
            end, length = self._repeats.match(data)
            if end:
                self._begin(self._known.repeated(length), data, end)
                return
        try:
            end = -1 if self._held is not None else data.find(END_OF_HEAD)
            if end <= 0:
                whole = self._hold(data)
                if whole is None:
                    return
                data = whole
                end = data.find(END_OF_HEAD)
            if end > server.options.max_head_bytes:
                raise head_too_long(server.options.max_head_bytes)
            begin = 2 if data[0] == 13 else 0
            head = server.heads.read(data[begin:end])
        except BadMessageError as error:
            self._refuse_message(error)
            return
        if head.keep_alive and self._repeats.learn(data[begin : end + 4]):
            self._known = head
        self._begin(head, data, end + 4)

    def _hold(self, data: bytes) -> bytes | None:
        """Wait for the rest of a head; all of it once it is there."""
        if self._held is None:
            self._held = PartialHead(self._server.heads, self._server.options.max_head_bytes)
            self._head_due = True
            self._timer.arm(self._server.options.head_timeout_s)
        return self._held.add(data)

    def _begin(self, head: RequestHead, data: bytes, at: int) -> None:
        server = self._server
        if server.busy_poll is not None:
            server.busy_poll.extend()
        self._held = None
        self._busy = True
        self._head_due = False
        self._timer.disarm()
        self._served += 1
        self.speaks_chunks = head.line.minor == 1
        self._is_last = not head.keep_alive or self._served >= server.options.max_requests
        length = head.length
        rest = len(data) - at
        if not head.chunked and rest >= length:
            self._whole = data[at : at + length]
            if rest > length:
                self._keep(data[at + length :])
        else:
            self._asks = head.expects_continue
            self._body = IncomingBody(None if head.chunked else length, server.options, server.budget)
            if rest:
                self._feed(self._body, data[at:])
        line = head.line
        client = self._peer
        if not server.trusted.nobody:
            client = server.trusted.client(
                client, [value for name, value in head.headers if name == b"x-forwarded-for"]
            )
        self._request = Request(
            line.method, line.path, head.headers, client, self._read_body, line.target, head.index, head.memo
        )
        self._reply = ClientReply(self, head_only=line.method == "HEAD")
        if server.direct is None or not self._may_go_directly(head):
            self._wake_task()
        elif self._whole is not None:
            self._pass_directly(server.direct)
        else:
            self._postponed = True
            self._timer.arm(server.options.body_timeout_s)

    def _may_go_directly(self, head: RequestHead) -> bool:
        """Whether the body is there, or is small and on its way: many clients send it right after the head."""
        if head.line.minor != 1 or head.line.method != "POST" or head.chunked or not head.length:
            return False
        body = self._body
        return body is None or (head.length <= MAX_POSTPONED_BYTES and not self._asks and not body.complete)

    def _begin_postponed(self, body: IncomingBody) -> None:
        """The body of a request that waited for it is there, or will never be."""
        direct = self._server.direct
        self._postponed = False
        self._timer.disarm()
        if direct is None or body.error is not None or not body.complete:
            self._wake_task()
            return
        self._whole, self._paid = body.take(), body.held
        self._body = None
        self._pass_directly(direct)

    def _pass_directly(self, direct: "DirectPath") -> None:
        """Let the direct path have the request, or the task if it is none for it."""
        request, reply, whole = self._request, self._reply, self._whole
        if request is None or reply is None or whole is None:
            return
        self._request = None
        if not self._pay(whole) or not direct.take(self, request, reply, whole):
            self._request = request
            self._wake_task()

    def _pay(self, whole: bytes) -> bool:
        """Take the body from the budget, unless that was done; False when there is no room for it."""
        server, size = self._server, len(whole)
        if not self._paid and size <= server.options.max_body_bytes and server.budget.take(size):
            self._paid = size
        return self._paid == size

    def _wake_task(self) -> None:
        if self.task is None:
            self.task = self._server.loop.create_task(self._work())
        elif self._idle_waiter is not None and not self._idle_waiter.done():
            self._idle_waiter.set_result(None)

    async def _work(self) -> None:
        """Handle requests until the connection ends."""
        server = self._server
        try:
            while self._reply is not None:
                request, reply, job = self._request, self._reply, self._job
                self._request = self._job = None
                if job is not None:
                    await job()
                elif request is not None and request.path in server.operations_paths:
                    await server.operate(request, reply)
                elif request is not None:
                    await server.handler(request, reply)
                self._finish(reply)
                if self._deaf or self._closed:
                    return
                if not self._has_work():
                    self._idle_waiter = server.loop.create_future()
                    await self._idle_waiter
        except Exception:
            # The boundary of one connection: it fails alone, with a trace in the log.
            log.exception("connection_failed")
        finally:
            self.task = None
            self._pay_back()
            if self._busy and not self._closed:
                self._transport.abort()

    def _has_work(self) -> bool:
        return self._request is not None or self._job is not None

    def _finish(self, reply: ClientReply) -> None:
        """The request is handled: on to the next one, if the connection can carry one."""
        reply.finish()
        unread = self.body_is_unread
        if self._paid or self._body is not None:
            self._pay_back()
        self._busy = False
        self._on_drained = None
        self._reply = self._whole = self._body = None
        if self._closed:
            return
        if not reply.ended:
            # The end of the answer never came: a closed connection is the only honest thing to say now.
            self._transport.abort()
            self._deaf = True
        elif reply.close or self._server.closing:
            self.close(linger=unread or bool(self._ahead))
        else:
            if self._server.busy_poll is not None:
                self._server.busy_poll.extend()
            self._timer.arm(self._server.options.keep_alive_s)
            if self._reading_paused:
                self._resume_reading()
            if self._ahead:
                ahead, self._ahead = self._ahead, b""
                self._read_head(ahead)

    # The direct path

    def conclude(self) -> None:
        """See `ports.ClientLine`."""
        if self._reply is not None:
            self._finish(self._reply)

    def go_on(self, job: Callable[[], Awaitable[None]]) -> None:
        """See `ports.ClientLine`."""
        self._job = job
        self._wake_task()

    # Bodies

    @property
    def body_is_unread(self) -> bool:
        """Whether more of the present request is to come."""
        return self._body is not None and not self._body.complete

    @property
    def must_close(self) -> bool:
        """Whether the present answer is the last one."""
        return self._is_last or self._server.closing or self.body_is_unread

    async def _read_body(self) -> bytes:
        if self._body is not None:
            return await self._body.read(self._ask_for_body)
        whole = self._whole
        if whole is None:
            raise ClientGoneError
        if whole and not self._paid:
            server = self._server
            if len(whole) > server.options.max_body_bytes:
                raise errors.body_too_large(server.options.max_body_bytes)
            if not server.budget.take(len(whole)):
                raise bodies_full()
            self._paid = len(whole)
        return whole

    def _ask_for_body(self) -> None:
        if self._asks and not self._closed:
            self._asks = False
            self._transport.write(_CONTINUE)
        self._resume_reading()

    def _feed(self, body: IncomingBody, data: bytes) -> None:
        try:
            rest = body.feed(data)
        except BadMessageError as error:
            self._server.note_refusal(error)
            self._deaf = True
            body.break_off(as_api_error(error))
            if self._postponed:
                self._begin_postponed(body)
            return
        if rest:
            self._keep(rest)
        if self._postponed and (body.complete or body.error is not None):
            self._begin_postponed(body)
        elif not body.complete and not body.wanted and body.size > MAX_UNREAD_BODY_BYTES:
            self._pause_reading()

    def _pay_back(self) -> None:
        body, self._body = self._body, None
        budget = self._server.budget
        budget.give_back(self._paid + (body.held if body is not None else 0))
        self._paid = 0

    def _keep(self, data: bytes) -> None:
        """Sent ahead of the answer: it waits."""
        self._ahead += data
        if len(self._ahead) > MAX_PIPELINED_BYTES:
            self._pause_reading()

    # Ends

    @property
    def is_idle(self) -> bool:
        return not self._busy

    def _client_left(self) -> None:
        if self._body is not None:
            self._body.break_off(ClientGoneError())
        if self._reply is not None:
            self._reply.hang_up()

    def _refuse_message(self, error: BadMessageError) -> None:
        self._server.note_refusal(error)
        self._refuse(as_api_error(error))

    def _refuse(self, error: ApiError) -> None:
        """Answer what no handler gets to see, and close."""
        self._held = None
        self._transport.write(refusal(error, self.date_line))
        self.close(linger=True)

    def _on_timer(self) -> None:
        if self._head_due and not self._lingering:
            self._refuse_message(BadMessageError("slow", "The head of the request did not arrive in time.", 408))
        elif self._postponed and self._body is not None:
            self._body.break_off(errors.body_too_slow())
            self._begin_postponed(self._body)
        elif self._busy or self._lingering:
            super()._on_timer()
        else:
            self.close()
