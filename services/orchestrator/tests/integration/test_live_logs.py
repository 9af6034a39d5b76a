"""Live logs from a real engine through a real orchestrator and NATS, read as the registry reads them."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from pydantic import SecretStr

from cortex_contracts.base import NodeId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.enums import DesiredState
from cortex_contracts.operations import LogsChunkV1
from cortex_kit.bus import Bus
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.log_follow import FollowTiming, follow_logs

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

NODE = NodeId("testnode")


@pytest.fixture
async def reader(cluster: Any) -> AsyncIterator[Bus]:
    bus = Bus(SecretStr(cluster.server.url), name="reader")
    task = asyncio.create_task(bus.run())
    async with asyncio.timeout(20):
        await bus.wait_connected()
    yield bus
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Reading:
    """One reader that keeps everything it gets."""

    def __init__(
        self, bus: Bus, model: ModelDocumentV1, *, tail: int = 500, timing: FollowTiming | None = None
    ) -> None:
        self.chunks: list[LogsChunkV1] = []
        self._stream = follow_logs(bus, NODE, model.id, tail=tail, timing=timing)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with aclosing(self._stream) as stream:
            async for chunk in stream:
                self.chunks.append(chunk)

    @property
    def text(self) -> str:
        return "\n".join(line for chunk in self.chunks for line in chunk.lines)

    @property
    def ended(self) -> str | None:
        return self.chunks[-1].ended if self.chunks else None


async def test_history_then_live_lines_until_the_engine_is_stopped(
    cluster: Any, reader: Bus, llama_model: ModelDocumentV1
) -> None:
    cluster.start()
    await cluster.put(llama_model)
    document = await cluster.wait_started(llama_model)
    await cluster.chat(document)
    reading = Reading(reader, llama_model)
    await cluster.until(lambda: "loading model" in reading.text, "history arrives")
    before = len(reading.chunks)
    await cluster.chat(document)
    await cluster.until(lambda: len(reading.chunks) > before, "what the engine says of a request arrives")
    await cluster.put(llama_model.model_copy(update={"desired_state": DesiredState.STOPPED}))
    await cluster.until(lambda: reading.ended, "the end is told")
    assert reading.ended in ("the engine ended with exit code 0", "the engine was removed")
    assert [chunk.sequence for chunk in reading.chunks] == list(range(len(reading.chunks)))
    assert sum(chunk.skipped for chunk in reading.chunks) == 0
    await reading.task


async def test_two_orchestrators_give_one_copy_and_the_other_takes_over(
    cluster: Any, reader: Bus, llama_model: ModelDocumentV1
) -> None:
    first = cluster.start()
    await cluster.put(llama_model)
    document = await cluster.wait_started(llama_model)
    await cluster.chat(document)
    cluster.start()
    timing = FollowTiming(renew_s=0.5, silence_s=60)
    reading = Reading(reader, llama_model, timing=timing)
    await cluster.until(lambda: "loading model" in reading.text, "history arrives")
    assert reading.text.count(reading.text.splitlines()[0]) == 1
    first.send_signal(signal.SIGKILL)
    first.wait(timeout=10)
    await cluster.until(lambda: "container.adopted" in cluster.subjects(), "the second one acts")
    before = len(reading.chunks)
    await cluster.until(lambda: len(reading.chunks) > before, "the copy goes on")
    await cluster.chat(document)
    sequences = [chunk.sequence for chunk in reading.chunks]
    assert sequences == sorted(set(sequences))
    reading.task.cancel()
    await asyncio.gather(reading.task, return_exceptions=True)


async def test_a_shutdown_of_the_orchestrator_is_told_to_the_reader(
    cluster: Any, reader: Bus, llama_model: ModelDocumentV1
) -> None:
    orchestrator = cluster.start()
    await cluster.put(llama_model)
    await cluster.wait_started(llama_model)
    reading = Reading(reader, llama_model)
    await cluster.until(lambda: reading.chunks, "the copy begins")
    orchestrator.send_signal(signal.SIGTERM)
    await cluster.until(lambda: reading.ended, "the end is told")
    assert reading.ended == "the orchestrator is shutting down"
    assert await asyncio.to_thread(orchestrator.wait, 20) == 0
    await reading.task


async def test_a_replica_that_is_not_there_is_refused(cluster: Any, reader: Bus, llama_model: ModelDocumentV1) -> None:
    cluster.start()

    async def code() -> str | None:
        try:
            await anext(follow_logs(reader, NODE, llama_model.id))
        except TransientError:
            return None  # the orchestrator is still starting
        except DomainError as error:
            return error.code
        return "none"

    assert await cluster.until(code, "an answer", timeout=60) == "replica_not_found"
