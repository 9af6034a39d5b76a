"""What the database, the endpoints themselves and the health service say of upstreams."""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus

import httpx
from pydantic import BaseModel, ValidationError

from cortex_contracts import subjects
from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.operations import ProbeRequestV1, ProbeResultV1
from cortex_kit.bus import Bus
from cortex_kit.errors import TransientError
from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.errors import UnavailableError
from cortex_registry.handlers.upstreams import DISCOVERED, VerdictChange

_SQL = load_queries("upstreams")
MAX_BODY_BYTES = 1024 * 1024
MAX_MODELS = 64


class PostgresUpstreams:
    """UpstreamRecords."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def history(self, replicas: Collection[ReplicaId], limit: int) -> Mapping[str, tuple[VerdictChange, ...]]:
        if not replicas:
            return {}
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["history"], list(replicas), limit)
        found: dict[str, list[VerdictChange]] = {}
        for row in rows:
            reason = str(json.loads(row["data"]).get("reason") or "")
            change = VerdictChange(row["time"], row["topic"] == "upstream.healthy", reason)
            found.setdefault(row["replica_id"], []).append(change)
        return {replica: tuple(changes) for replica, changes in found.items()}

    async def discovered(self) -> frozenset[ModelId]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["discovered"], DISCOVERED)
        return frozenset(ModelId(str(row["model_id"])) for row in rows)


class NatsProbes:
    """HealthProbes over request-reply."""

    def __init__(self, bus: Bus, *, timeout_s: float = 3.0) -> None:
        self._bus = bus
        self._timeout_s = timeout_s

    async def probe_now(self, model_id: ModelId | None) -> Sequence[ReplicaId]:
        request = ProbeRequestV1(model_id=model_id)
        try:
            result = await self._bus.request(subjects.RPC_HEALTH_PROBE, request, ProbeResultV1, timeout=self._timeout_s)
        except TransientError as error:
            message = "The health service does not answer. Try again in a moment."
            raise UnavailableError("health_unavailable", message) from error
        return result.replicas


class _Offered(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Offered]


class HttpCatalogue:
    """Catalogue. A connection per question: it is asked a few times at the start."""

    def __init__(self, *, timeout_s: float = 5.0, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._timeout_s = timeout_s
        self._transport = transport

    async def models_at(self, url: str) -> Sequence[str]:
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._get(f"{url}/v1/models")
            offered = [item.id for item in _Models.model_validate_json(body).data]
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise TransientError(f"GET /v1/models failed ({type(error).__name__})") from error
        except ValidationError as error:
            raise TransientError("GET /v1/models answered no list of models") from error
        if not offered:
            raise TransientError("GET /v1/models answered an empty list")
        return offered[:MAX_MODELS]

    async def _get(self, url: str) -> bytes:
        async with (
            httpx.AsyncClient(
                timeout=self._timeout_s, trust_env=False, follow_redirects=False, transport=self._transport
            ) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != HTTPStatus.OK:
                raise TransientError(f"GET /v1/models answered status {response.status_code}")
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    raise TransientError("GET /v1/models answered too much")
            return bytes(body)
