"""Looks at engines over HTTP. Knows what the health endpoints of llama.cpp and vLLM mean (docs: engines)."""

import asyncio
import time
from http import HTTPStatus
from typing import assert_never

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from cortex_contracts.documents import EngineLoad, ReplicaDocumentV1
from cortex_contracts.enums import EngineType
from cortex_health.domain import Outcome, Probe
from cortex_health.metrics import PROBE_SECONDS
from cortex_kit.secrets import engine_api_key

MAX_BODY_BYTES = 4 * 1024 * 1024


def new_client(
    *, connect_timeout_s: float, timeout_s: float, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """A client without kept connections (every probe shows that the engine accepts one), proxies and redirects."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(timeout_s, connect=connect_timeout_s),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        trust_env=False,
        follow_redirects=False,
        transport=transport,
    )


class _GenerationSettings(BaseModel):
    n_ctx: int | None = None


class _Props(BaseModel):
    """The part of llama-server's /props that we read; other builds may lack it."""

    total_slots: int | None = None
    default_generation_settings: _GenerationSettings = _GenerationSettings()


class HttpEngines:
    """The port `Engines`."""

    def __init__(self, client: httpx.AsyncClient, secret_key: SecretStr, *, deadline_s: float) -> None:
        self._client = client
        self._secret_key = secret_key
        self._deadline_s = deadline_s

    async def probe(self, replica: ReplicaDocumentV1) -> Probe:
        """One GET /health within the deadline; every failure is a Probe."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._deadline_s):
                status, _ = await self._get(replica, "/health")
            probe = _judge(replica.engine_type, status)
        except (httpx.TimeoutException, TimeoutError):
            probe = Probe(Outcome.TIMEOUT, "no answer in time")
        except httpx.ConnectError as error:
            probe = _judge_connect_error(error)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            probe = Probe(Outcome.BROKEN, f"connection failed ({type(error).__name__})")
        PROBE_SECONDS.labels(replica.engine_type, probe.outcome).observe(time.perf_counter() - started)
        return probe

    async def read_load(self, replica: ReplicaDocumentV1) -> EngineLoad | None:
        """Slots and context per slot of a llama-server; None for others and on any failure."""
        if replica.engine_type is not EngineType.LLAMACPP:
            return None
        try:
            async with asyncio.timeout(self._deadline_s):
                status, body = await self._get(replica, "/props")
            props = _Props.model_validate_json(body) if status == HTTPStatus.OK else None
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValidationError):
            return None
        if props is None or props.total_slots is None:
            return None
        return EngineLoad(slots_total=props.total_slots, context_per_slot=props.default_generation_settings.n_ctx)

    async def _get(self, replica: ReplicaDocumentV1, path: str) -> tuple[int, bytes]:
        key = engine_api_key(self._secret_key, replica.id, replica.spec_hash)
        url = f"{(replica.endpoint or '').rstrip('/')}{path}"
        async with self._client.stream("GET", url, headers={"Authorization": f"Bearer {key}"}) as response:
            body = b""
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    break
            return response.status_code, body


def _judge(engine_type: EngineType, status: int) -> Probe:
    """The body is not looked at: llama.cpp sends JSON, vLLM sends nothing."""
    if status == HTTPStatus.OK:
        return Probe(Outcome.OK, "answers")
    match engine_type:
        case EngineType.LLAMACPP if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return Probe(Outcome.LOADING, "loading model")
        case EngineType.VLLM if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return Probe(Outcome.BAD_STATUS, "the engine core is dead (HTTP 503)")
        case EngineType.LLAMACPP | EngineType.VLLM:
            return Probe(Outcome.BAD_STATUS, f"HTTP {status}")
        case _:
            assert_never(engine_type)


def _judge_connect_error(error: httpx.ConnectError) -> Probe:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return Probe(Outcome.REFUSED, "connection refused")
        cause = cause.__cause__ or cause.__context__
    return Probe(Outcome.BROKEN, "cannot be reached")
