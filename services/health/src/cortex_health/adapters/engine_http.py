"""Looks at engines over HTTP. Knows what the health endpoints of llama.cpp and vLLM mean (docs: engines)."""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import assert_never

import httpx
from pydantic import BaseModel, ValidationError

from cortex_contracts.documents import EngineLoad, ReplicaDocumentV1
from cortex_contracts.enums import EngineType
from cortex_contracts.external import EXTERNAL_NODE
from cortex_health.adapters.documents import EngineKeys
from cortex_health.domain import Outcome, Probe
from cortex_health.metrics import PROBE_SECONDS

MAX_BODY_BYTES = 4 * 1024 * 1024
_UNKNOWN_PATH = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)


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


@dataclass(frozen=True, slots=True)
class _MetricNames:
    running: str
    waiting: str
    work: tuple[str, ...]


_METRICS: Mapping[EngineType, _MetricNames] = MappingProxyType(
    {
        EngineType.LLAMACPP: _MetricNames(
            "llamacpp:requests_processing",
            "llamacpp:requests_deferred",
            ("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total", "llamacpp:n_decode_total"),
        ),
        EngineType.VLLM: _MetricNames(
            "vllm:num_requests_running",
            "vllm:num_requests_waiting",
            ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total"),
        ),
    }
)


def _sums(body: bytes) -> dict[str, float]:
    """Metric name -> sum over its label sets, of a Prometheus text. What cannot be read is left out."""
    sums: dict[str, float] = {}
    for line in body.decode(errors="replace").splitlines():
        if line.startswith("#"):
            continue
        name, _, rest = line.partition("{" if "{" in line else " ")
        words = rest.rpartition("}")[2].split()
        try:
            value = float(words[0])
        except (IndexError, ValueError):
            continue
        if math.isfinite(value):
            sums[name] = sums.get(name, 0.0) + value
    return sums


class HttpEngines:
    """The port `Engines`."""

    def __init__(self, client: httpx.AsyncClient, keys: EngineKeys, *, deadline_s: float) -> None:
        self._client = client
        self._keys = keys
        self._deadline_s = deadline_s

    async def probe(self, replica: ReplicaDocumentV1) -> Probe:
        """One GET /health within the deadline; every failure is a Probe.

        An endpoint of others that knows no /health is asked for its models instead.
        """
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._deadline_s):
                status, _ = await self._get(replica, "/health")
                if replica.node == EXTERNAL_NODE and status in _UNKNOWN_PATH:
                    status, _ = await self._get(replica, "/v1/models")
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

    async def read_traffic(self, replica: ReplicaDocumentV1) -> EngineLoad | None:
        """From the engine's Prometheus metrics; None on any failure and where they are switched off."""
        names = _METRICS[replica.engine_type]
        try:
            async with asyncio.timeout(self._deadline_s):
                status, body = await self._get(replica, "/metrics")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            return None
        if status != HTTPStatus.OK:
            return None
        found = _sums(body)
        if names.running not in found:
            return None
        work = [found[name] for name in names.work if name in found]
        return EngineLoad(
            running=int(found[names.running]),
            waiting=int(found.get(names.waiting, 0.0)),
            work_total=int(sum(work)) if work else None,
        )

    async def _get(self, replica: ReplicaDocumentV1, path: str) -> tuple[int, bytes]:
        key = self._keys.of(replica)
        url = f"{(replica.endpoint or '').rstrip('/')}{path}"
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        async with self._client.stream("GET", url, headers=headers) as response:
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
