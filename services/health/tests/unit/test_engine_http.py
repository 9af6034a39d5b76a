"""What the engines' answers mean, without a network."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from pydantic import SecretStr

from cortex_contracts.documents import EngineLoad
from cortex_contracts.enums import EngineType
from cortex_health.adapters.documents import EngineKeys
from cortex_health.adapters.engine_http import HttpEngines, new_client
from cortex_health.domain.verdicts import Outcome, Reason
from cortex_kit.secrets import engine_api_key

KEY = SecretStr("0123456789abcdef0123456789abcdef")


async def look(handler: Callable[[httpx.Request], object], replica, *, load: bool = False, deadline_s: float = 1.0):
    async with new_client(connect_timeout_s=1, timeout_s=1, transport=httpx.MockTransport(handler)) as client:  # type: ignore[arg-type]
        engines = HttpEngines(client, EngineKeys(KEY), deadline_s=deadline_s)
        return await (engines.read_load(replica) if load else engines.probe(replica))


def raising(error: Exception) -> Callable[[httpx.Request], httpx.Response]:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


LLAMA, VLLM = EngineType.LLAMACPP, EngineType.VLLM
LOADING = httpx.Response(503, json={"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}})


@pytest.mark.parametrize(
    ("engine_type", "answer", "outcome"),
    [
        (LLAMA, httpx.Response(200, json={"status": "ok"}), Outcome.OK),
        (LLAMA, LOADING, Outcome.LOADING),
        (LLAMA, httpx.Response(500, content=b"\xff\xfe"), Outcome.BAD_STATUS),
        (LLAMA, httpx.Response(404, text="<html>"), Outcome.BAD_STATUS),
        (LLAMA, httpx.Response(301, headers={"location": "http://elsewhere/"}), Outcome.BAD_STATUS),
        (VLLM, httpx.Response(200), Outcome.OK),
        (VLLM, httpx.Response(503), Outcome.BAD_STATUS),
        (VLLM, httpx.Response(401, json={"error": "Unauthorized"}), Outcome.BAD_STATUS),
    ],
)
async def test_an_answer_is_judged_by_its_status_per_engine(engine_type, answer, outcome, make_replica):
    probe = await look(lambda request: answer, make_replica(engine_type=engine_type))
    assert probe.outcome is outcome
    assert probe.reason


LLAMA_METRICS = """# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
llamacpp:prompt_tokens_total 10
llamacpp:tokens_predicted_total 20
llamacpp:n_decode_total 5
llamacpp:requests_processing 2
llamacpp:requests_deferred 1
llamacpp:predicted_tokens_seconds nan
"""
VLLM_METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a} b"} 1.0
vllm:num_requests_running{engine="1",model_name="a} b"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a} b"} 0.0
vllm:prompt_tokens_total{engine="0",model_name="a} b"} 1e2
not a metric
"""


@pytest.mark.parametrize(
    ("engine_type", "answer", "expected"),
    [
        (LLAMA, httpx.Response(200, text=LLAMA_METRICS), EngineLoad(running=2, waiting=1, work_total=35)),
        (VLLM, httpx.Response(200, text=VLLM_METRICS), EngineLoad(running=3, waiting=0, work_total=100)),
        (LLAMA, httpx.Response(501, text=LLAMA_METRICS), None),
        (LLAMA, httpx.Response(200, content=b"\xff{}"), None),
        (VLLM, httpx.Response(200, text=LLAMA_METRICS), None),
    ],
)
async def test_how_busy_an_engine_is_is_read_from_its_metrics(engine_type, answer, expected, make_replica):
    async with new_client(connect_timeout_s=1, timeout_s=1, transport=httpx.MockTransport(lambda _: answer)) as client:
        engines = HttpEngines(client, EngineKeys(KEY), deadline_s=1)
        sample = await engines.read_sample(make_replica(engine_type=engine_type))
        assert (sample.load if sample is not None else None) == expected


def refused() -> httpx.ConnectError:
    error = httpx.ConnectError("All connection attempts failed")
    error.__cause__ = OSError("All connection attempts failed")
    error.__cause__.__cause__ = ConnectionRefusedError(111, "Connection refused")
    return error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (refused(), Outcome.REFUSED),
        (httpx.ConnectError("Name or service not known"), Outcome.BROKEN),
        (httpx.ConnectTimeout("slow"), Outcome.TIMEOUT),
        (httpx.ReadTimeout("slow"), Outcome.TIMEOUT),
        (httpx.RemoteProtocolError("Server disconnected"), Outcome.BROKEN),
        (httpx.ReadError("reset"), Outcome.BROKEN),
    ],
)
async def test_every_failure_of_the_network_is_a_probe(error, outcome, make_replica):
    assert (await look(raising(error), make_replica())).outcome is outcome


@pytest.mark.parametrize("endpoint", ["nonsense", "http://[::1", "ftp://host"])
async def test_a_bad_endpoint_is_a_probe(endpoint, make_replica):
    async with new_client(connect_timeout_s=1, timeout_s=1) as client:
        probe = await HttpEngines(client, EngineKeys(KEY), deadline_s=1).probe(make_replica(endpoint=endpoint))
    assert probe.outcome is Outcome.BROKEN


async def test_a_hanging_engine_meets_the_deadline(make_replica):
    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    assert (await look(hang, make_replica(), deadline_s=0.01)).outcome is Outcome.TIMEOUT


async def test_an_engine_is_asked_with_its_own_key_at_its_endpoint(make_replica):
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    replica = make_replica(endpoint="http://engine:8080/")
    await look(handler, replica)
    assert str(seen[0].url) == "http://engine:8080/health"
    assert seen[0].headers["authorization"] == f"Bearer {engine_api_key(KEY, replica.id, replica.spec_hash)}"


@pytest.mark.parametrize(
    ("answer", "load"),
    [
        (
            httpx.Response(200, json={"total_slots": 4, "default_generation_settings": {"n_ctx": 2048}, "x": 1}),
            EngineLoad(slots_total=4, context_per_slot=2048),
        ),
        (httpx.Response(200, json={"total_slots": 2}), EngineLoad(slots_total=2)),
        (httpx.Response(200, json={"total_slots": "many"}), None),
        (httpx.Response(200, json=[]), None),
        (httpx.Response(200, content=b"not json"), None),
        (httpx.Response(401, json={}), None),
        (httpx.Response(200, content=b" " * (5 * 1024 * 1024)), None),
    ],
)
async def test_the_load_is_read_tolerantly(answer, load, make_replica):
    assert await look(lambda request: answer, make_replica(), load=True) == load


@pytest.mark.parametrize(
    ("answer", "context"),
    [
        (
            httpx.Response(200, json={"data": [{"id": "a", "max_model_len": 4096}, {"id": "b", "max_model_len": 1}]}),
            4096,
        ),
        (httpx.Response(200, json={"data": []}), None),
        (httpx.Response(200, json={"data": [{"max_model_len": "long"}]}), None),
        (httpx.Response(500), None),
    ],
)
async def test_a_vllm_tells_its_context(answer, context, make_replica):
    load = await look(lambda request: answer, make_replica(engine_type=VLLM), load=True)
    assert load == (EngineLoad(context_per_slot=context) if context else None)


async def test_the_kv_use_of_a_llama_server_is_that_of_its_working_slots(make_replica):
    slots = [
        {"id": 0, "n_ctx": 1000, "is_processing": False, "n_prompt_tokens": 900},
        {"id": 1, "n_ctx": 1000, "is_processing": True, "n_prompt_tokens": 500, "params": {"prompt": "secret"}},
    ]

    def handler(request: httpx.Request) -> httpx.Response:
        return (
            httpx.Response(200, json=slots) if request.url.path == "/slots" else httpx.Response(200, text=LLAMA_METRICS)
        )

    async with new_client(connect_timeout_s=1, timeout_s=1, transport=httpx.MockTransport(handler)) as client:
        sample = await HttpEngines(client, EngineKeys(KEY), deadline_s=1).read_sample(make_replica())
    assert sample is not None
    assert sample.load.kv_usage == 0.25


async def test_every_reason_is_one_of_a_closed_set(make_replica):
    for status in (200, 204, 301, 401, 403, 404, 418, 500, 503, 599):
        for engine_type in EngineType:
            probe = await look(lambda request, code=status: httpx.Response(code), make_replica(engine_type=engine_type))
            assert probe.reason in set(Reason)
