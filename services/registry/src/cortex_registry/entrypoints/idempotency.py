"""`Idempotency-Key`: a create that is sent twice happens once, and is answered twice alike.

One layer around every POST below /admin; routes know nothing of it. The key belongs to whoever signs in. Kept are the
answers that say a change was made (2xx); after a refusal the same key may be tried again. While the first request is
being answered a second one gets 409; a key whose registry died before it changed anything is free again after a minute.
A change is committed together with a mark in its key's row, so a registry that dies between the change and the answer leaves
neither a second change nor a wrong answer behind: from then on the key is answered with 409 `idempotent_answer_lost`.
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncGenerator
from typing import Protocol

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cortex_kit.logging import get_logger
from cortex_registry.adapters.claims import Claim, carrying
from cortex_registry.adapters.idempotency import Answer, Earlier
from cortex_registry.domain.identity import Identity
from cortex_registry.entrypoints.bodies import Replayed, read_body
from cortex_registry.entrypoints.guards import ADMIN, IDENTITY
from cortex_registry.entrypoints.problems import RETRY_AFTER_S, problem
from cortex_registry.errors import UnavailableError

log = get_logger()
HEADER = "idempotency-key"
REPLAYED = "idempotent-replayed"
NOT_KEPT = "cortex-answer-not-kept"
SHAPE = re.compile(r"[!-~]{1,128}")
MAX_KEPT_BYTES = 1024 * 1024
UNREPEATED = f"{ADMIN}/auth/"
"""Signing in makes cookies: that is never repeated from a store."""
_KEPT_HEADERS = frozenset({"content-type", "location", "etag", "cache-control"})


class Store(Protocol):
    """Where keys and answers are kept. Every method raises UnavailableError when it is away."""

    @property
    def renew_every_s(self) -> float: ...

    async def claim(self, actor: str, key: str, digest: str) -> Claim | Earlier: ...

    async def renew(self, claim: Claim) -> None: ...

    async def keep(self, claim: Claim, answer: Answer) -> None: ...

    async def release(self, claim: Claim) -> None: ...


class Idempotency:
    """ASGI layer; sits inside authentication and inside the limit on bodies."""

    def __init__(self, app: ASGIApp, *, store: Store) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = Headers(scope=scope).get(HEADER) if scope["type"] == "http" and scope["method"] == "POST" else None
        identity = scope.get(IDENTITY)
        if key is None or not isinstance(identity, Identity) or scope["path"].startswith(UNREPEATED):
            await self._app(scope, receive, send)
            return
        if not SHAPE.fullmatch(key):
            message = "An Idempotency-Key is 1 to 128 visible ASCII characters."
            await problem(400, "invalid_idempotency_key", message)(scope, receive, send)
            return
        body = await read_body(receive)
        if body is None:
            return  # the client has gone
        await self._once(scope, Replayed(body, receive), send, key, _digest(scope, identity, body))

    async def _once(self, scope: Scope, receive: Replayed, send: Send, key: str, digest: str) -> None:
        identity: Identity = scope[IDENTITY]
        try:
            found = await self._store.claim(_actor(identity), key, digest)
        except UnavailableError as error:
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            await problem(503, error.code, error.message, headers=headers)(scope, receive, send)
            return
        if isinstance(found, Earlier):
            await _repeat(found, digest)(scope, receive, send)
            return
        capture = _Capture(send)
        async with self._renewed(found):
            with carrying(found):
                await self._app(scope, receive, capture)
        await self._finish(found, capture.answer)
        await capture.flush()

    async def _finish(self, claim: Claim, answer: Answer | None) -> None:
        try:
            await (self._store.keep(claim, answer) if answer is not None else self._store.release(claim))
        except UnavailableError as error:
            log.warning("idempotent_answer_not_kept", reason=error.message)

    @contextlib.asynccontextmanager
    async def _renewed(self, claim: Claim) -> AsyncGenerator[None]:
        task = asyncio.create_task(self._renew(claim), name="idempotency-renewal")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _renew(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(self._store.renew_every_s)
            try:
                await self._store.renew(claim)
            except UnavailableError as error:
                log.warning("idempotency_claim_not_renewed", reason=error.message)


class _Capture:
    """A send channel that holds an answer of 2xx back until it is kept, and lets every other pass."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[Message] = []
        self._status = 0
        self._size = 0
        self._passing = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            streamed = Headers(raw=message.get("headers", [])).get("content-type", "").startswith("text/event-stream")
            self._passing = not 200 <= self._status < 300 or streamed
        self._size += len(message.get("body", b""))
        if self._passing:
            await self._send(message)
            return
        self._held.append(message)

    @property
    def answer(self) -> Answer | None:
        """What to keep; an answer too long to keep loses its body."""
        if self._passing or not self._held:
            return None
        headers = Headers(raw=self._held[0].get("headers", []))
        kept = tuple((name, value) for name, value in headers.items() if name in _KEPT_HEADERS)
        if self._size > MAX_KEPT_BYTES:
            return Answer(self._status, (*kept, (NOT_KEPT, "true")), b"")
        return Answer(self._status, kept, b"".join(message.get("body", b"") for message in self._held[1:]))

    async def flush(self) -> None:
        """Send what was held back."""
        for message in self._held:
            await self._send(message)


def _repeat(earlier: Earlier, digest: str) -> Response:
    if earlier.digest != digest:
        message = "This Idempotency-Key belongs to another request. Choose a new one."
        return problem(422, "idempotency_key_reused", message)
    if earlier.lost:
        message = (
            "This request was carried out, but the registry died before its answer was kept. Look at what there is now; "
            "to carry it out once more, choose a new key."
        )
        return problem(409, "idempotent_answer_lost", message)
    if earlier.answer is None:
        message = "The first request with this Idempotency-Key is still being answered."
        return problem(409, "idempotency_in_progress", message, headers={"Retry-After": str(RETRY_AFTER_S)})
    answer = earlier.answer
    if (NOT_KEPT, "true") in answer.headers:
        message = "This request was carried out before; its answer was too long to be kept."
        return problem(409, "idempotent_answer_not_kept", message)
    return Response(answer.body, answer.status, headers={**dict(answer.headers), REPLAYED: "true"})


def _actor(identity: Identity) -> str:
    return f"user:{identity.user_id}" if identity.user_id is not None else identity.kind.value


def _digest(scope: Scope, identity: Identity, body: bytes) -> str:
    """The request, and the role it was made with: who has lost a right cannot have an old answer repeated."""
    parts = (scope["method"].encode(), scope["path"].encode(), scope.get("query_string", b""), identity.role.encode())
    digest = hashlib.sha256()
    for part in (*parts, body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
