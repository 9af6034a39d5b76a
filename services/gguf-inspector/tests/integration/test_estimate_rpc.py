"""Estimate and recommend requests on a real NATS."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from cortex_contracts.engines import LlamaCppOptions
from cortex_contracts.estimates import (
    DeviceV1,
    EstimateRequestV1,
    EstimateResultV1,
    HostV1,
    RecommendRequestV1,
    RecommendResultV1,
)
from cortex_contracts.subjects import RPC_GGUF_ESTIMATE, RPC_GGUF_RECOMMEND
from cortex_gguf_inspector.entrypoints.estimate_rpc import attach_estimates
from cortex_gguf_inspector.limits import Limits
from cortex_kit.broker import new_broker, run_broker
from cortex_kit.bus import Bus
from cortex_kit.errors import DomainError, TransientError
from cortex_testing.gguf import fixtures

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
GIB = 1 << 30


@pytest.fixture
async def bus(nats_url: str, tmp_path: Path) -> AsyncIterator[Bus]:
    fixtures.gpt_oss_20b().write(tmp_path / "gpt-oss.gguf")
    broker = new_broker(SecretStr(nats_url), name="estimates")
    attach_estimates(broker, tmp_path, Limits())
    bus = Bus(SecretStr(nats_url), name="test")
    tasks = [asyncio.create_task(bus.run())]
    await asyncio.wait_for(bus.wait_connected(), timeout=10)
    tasks.append(asyncio.create_task(run_broker(broker, bus)))
    async with asyncio.timeout(20):
        while True:
            try:
                await bus.request(RPC_GGUF_ESTIMATE, EstimateRequestV1(path="none"), EstimateResultV1, timeout=5)
            except TransientError:
                await asyncio.sleep(0.05)
            except DomainError:
                break
    yield bus
    for task in reversed(tasks):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_estimate_is_answered(bus: Bus):
    device = DeviceV1(name="GPU0", memory_free=24 * GIB)
    request = EstimateRequestV1(
        path="gpt-oss.gguf",
        llamacpp=LlamaCppOptions(context_size=8192, parallel_slots=1),
        devices=(device,),
        host=HostV1(memory_free=32 * GIB),
        ask_engine=True,
    )
    found = await bus.request(RPC_GGUF_ESTIMATE, request, EstimateResultV1, timeout=30)
    assert found.known
    assert found.fits
    assert found.largest_context == 131_072
    assert [memory.device for memory in found.devices] == ["CPU", "GPU0"]


async def test_a_recommendation_is_answered(bus: Bus):
    request = RecommendRequestV1(path="gpt-oss.gguf", host=HostV1(memory_free=32 * GIB, cpu_count=8))
    found = await bus.request(RPC_GGUF_RECOMMEND, request, RecommendResultV1, timeout=30)
    assert found.llamacpp is not None
    assert (found.llamacpp.ngl, found.llamacpp.threads) == (0, 4)


async def test_refusals_and_nonsense_are_answered(bus: Bus):
    with pytest.raises(DomainError) as caught:
        await bus.request(RPC_GGUF_ESTIMATE, EstimateRequestV1(path="../x.gguf"), EstimateResultV1, timeout=10)
    assert caught.value.code == "path_outside_models_root"
    answer = await bus.nc.request(RPC_GGUF_RECOMMEND, b"nonsense", timeout=10)
    assert b"invalid_request" in answer.data
