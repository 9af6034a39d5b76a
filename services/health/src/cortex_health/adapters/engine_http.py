"""Looks at engines over HTTP. Knows what the health endpoints of llama.cpp and vLLM mean (docs: engines)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus
from typing import assert_never

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from cortex_contracts.documents import EngineLoad, ReplicaDocumentV1
from cortex_contracts.enums import EngineType
from cortex_contracts.external import EXTERNAL_NODE
from cortex_health.adapters.documents import EngineKeys
from cortex_health.domain.engine_metrics import EngineSample, read_metrics
from cortex_health.domain.verdicts import Outcome, Probe, Reason
from cortex_health.metrics import CANARIES, PROBE_SECONDS, SCRAPES

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


class _VllmModel(BaseModel):
    max_model_len: int | None = None


class _VllmModels(BaseModel):
    """The part of vLLM's /v1/models that we read."""

    data: list[_VllmModel] = []


class _Slot(BaseModel):
    """The part of llama-server's /slots that we read: how much of a slot's context its request holds."""

    n_ctx: int = 0
    is_processing: bool = False
    n_prompt_tokens: int = 0


_slots = TypeAdapter(list[_Slot])

Prove = Callable[[ReplicaDocumentV1], Awaitable[Probe | None]]
"""One real request; None when this replica is not asked."""


class HttpEngines:
    """The port `Engines`."""

    def __init__(
        self, client: httpx.AsyncClient, keys: EngineKeys, *, deadline_s: float, prove: Prove | None = None
    ) -> None:
        self._client = client
        self._keys = keys
        self._deadline_s = deadline_s
        self._prove = prove

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
            probe = Probe(Outcome.TIMEOUT, Reason.NO_ANSWER)
        except httpx.ConnectError as error:
            probe = _judge_connect_error(error)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL):
            probe = Probe(Outcome.BROKEN, Reason.UNUSABLE_ENDPOINT)
        except httpx.HTTPError:
            probe = Probe(Outcome.BROKEN, Reason.CONNECTION_BROKEN)
        PROBE_SECONDS.labels(replica.engine_type, probe.outcome).observe(time.perf_counter() - started)
        return probe

    async def prove(self, replica: ReplicaDocumentV1) -> Probe | None:
        """See `ports.Engines`."""
        probe = await self._prove(replica) if self._prove is not None else None
        if probe is not None:
            CANARIES.labels(replica.engine_type, probe.outcome).inc()
        return probe

    async def read_load(self, replica: ReplicaDocumentV1) -> EngineLoad | None:
        """Slots and context per slot of a llama-server, context of a vLLM; None on any failure."""
        path = "/props" if replica.engine_type is EngineType.LLAMACPP else "/v1/models"
        body = await self._read(replica, path)
        if body is None:
            return None
        try:
            return _props_load(body) if replica.engine_type is EngineType.LLAMACPP else _models_load(body)
        except ValidationError:
            return None

    async def read_sample(self, replica: ReplicaDocumentV1) -> EngineSample | None:
        """From the engine's Prometheus metrics; None on any failure and where they are switched off."""
        body = await self._read(replica, "/metrics")
        sample = read_metrics(replica.engine_type, body) if body is not None else None
        SCRAPES.labels(replica.engine_type, "read" if sample is not None else "failed").inc()
        if sample is None or replica.engine_type is not EngineType.LLAMACPP:
            return sample
        usage = await self._slot_usage(replica) if sample.load.running else 0.0
        return replace(sample, load=sample.load.model_copy(update={"kv_usage": usage}))

    async def _slot_usage(self, replica: ReplicaDocumentV1) -> float | None:
        """llama-server tells its KV cache by slot only. Asked while it works alone: the question wakes a sleeping model."""
        body = await self._read(replica, "/slots")
        try:
            slots = _slots.validate_json(body) if body is not None else []
        except ValidationError:
            return None
        room = sum(max(0, slot.n_ctx) for slot in slots)
        held = sum(min(max(0, slot.n_prompt_tokens), max(0, slot.n_ctx)) for slot in slots if slot.is_processing)
        return round(held / room, 2) if room else None

    async def _read(self, replica: ReplicaDocumentV1, path: str) -> bytes | None:
        """The body of a 200 within the deadline and the size limit; None in every other case."""
        try:
            async with asyncio.timeout(self._deadline_s):
                status, body = await self._get(replica, path)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            return None
        return body if status == HTTPStatus.OK and len(body) <= MAX_BODY_BYTES else None

    async def _get(self, replica: ReplicaDocumentV1, path: str) -> tuple[int, bytes]:
        key = self._keys.of(replica)
        url = f"{(replica.endpoint or '').rstrip('/')}{path}"
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        async with self._client.stream("GET", url, headers=headers) as response:
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    break
            return response.status_code, bytes(body)


def _props_load(body: bytes) -> EngineLoad | None:
    props = _Props.model_validate_json(body)
    if props.total_slots is None:
        return None
    return EngineLoad(slots_total=props.total_slots, context_per_slot=props.default_generation_settings.n_ctx)


def _models_load(body: bytes) -> EngineLoad | None:
    longest = [model.max_model_len for model in _VllmModels.model_validate_json(body).data if model.max_model_len]
    return EngineLoad(context_per_slot=longest[0]) if longest else None


def _judge(engine_type: EngineType, status: int) -> Probe:
    """The body is not looked at: llama.cpp sends JSON, vLLM sends nothing."""
    if status == HTTPStatus.OK:
        return Probe(Outcome.OK, Reason.ANSWERS)
    match engine_type:
        case EngineType.LLAMACPP if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return Probe(Outcome.LOADING, Reason.LOADING_MODEL)
        case EngineType.VLLM if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return Probe(Outcome.BAD_STATUS, Reason.CORE_DEAD)
        case EngineType.LLAMACPP | EngineType.VLLM:
            return Probe(Outcome.BAD_STATUS, _status_reason(status))
        case _:
            assert_never(engine_type)


def _status_reason(status: int) -> Reason:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Reason.KEY_REFUSED
    if status == HTTPStatus.NOT_FOUND:
        return Reason.NO_HEALTH
    if 400 <= status < 500:
        return Reason.CLIENT_ERROR
    return Reason.SERVER_ERROR if 500 <= status < 600 else Reason.NO_ENGINE


def _judge_connect_error(error: httpx.ConnectError) -> Probe:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return Probe(Outcome.REFUSED, Reason.CONNECTION_REFUSED)
        cause = cause.__cause__ or cause.__context__
    return Probe(Outcome.BROKEN, Reason.UNREACHABLE)
