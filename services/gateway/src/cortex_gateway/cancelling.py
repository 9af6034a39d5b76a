"""`POST /v1/requests/{id}/cancel` and `DELETE /v1/requests/{id}`: a client ends a request of its own key, wherever it runs."""

from typing import Protocol

import msgspec

from cortex_gateway.domain import errors
from cortex_gateway.domain.auth import ApiKey
from cortex_gateway.domain.refusals import request_not_found
from cortex_gateway.ports import Reply
from cortex_gateway.running import RunningRequests

REQUESTS_PATH = "/v1/requests/"
_CANCEL = "/cancel"
MAX_ID = 64


class OtherGateways(Protocol):
    """The other gateways of this installation."""

    async def cancel(self, key_id: str, request_id: str) -> bool:
        """Ask them to end a request; False when none has it, or none answers within a second. Never raises."""
        ...


class Cancellation:
    """Ends requests by id, here or at another gateway."""

    def __init__(self, running: RunningRequests, others: OtherGateways) -> None:
        self._running = running
        self._others = others

    async def handle(self, key: ApiKey, method: str, path: str, reply: Reply, request_id: str) -> int:
        """Answer 200 once the request was told to end.

        Raises:
            ApiError: 404 when the key has no such request, 405.
        """
        name = path[len(REQUESTS_PATH) :]
        wanted = "POST" if name.endswith(_CANCEL) else "DELETE"
        if method != wanted:
            raise errors.method_not_allowed(method, path, wanted)
        name = name.removesuffix(_CANCEL)
        key_id = key.id
        known = 0 < len(name) <= MAX_ID
        if not known or not (self._running.cancel(key_id, name) or await self._others.cancel(key_id, name)):
            raise request_not_found(name[:MAX_ID])
        body = msgspec.json.encode({"id": name, "object": "request.cancelled", "cancelled": True})
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
        ]
        await reply.start(200, headers)
        await reply.send(body, more=False)
        return 200
