"""The delivery policy on a real JetStream: nothing lost, nothing retried for ever."""

import asyncio
from collections.abc import Callable
from typing import Self

import pytest
from pydantic import SecretStr

from cortex_contracts.base import ModelId, ReplicaId
from cortex_contracts.envelope import Envelope
from cortex_contracts.events import UpstreamSuspectedV1
from cortex_contracts.streams import DLQ, EVENTS, HEALTH_SUSPECTED
from cortex_kit.broker import durable, new_broker, run_broker
from cortex_kit.bus import Bus
from cortex_kit.dead_letters import MaxDeliveriesAdvisory, bury
from cortex_kit.errors import PermanentError, TransientError
from cortex_kit.events import EventPublisher
from cortex_kit.ids import uuid7
from cortex_kit.lease import Lease
from cortex_kit.provision import provision
from cortex_testing.servers import NatsServer

pytestmark = pytest.mark.integration

SUSPECTED = UpstreamSuspectedV1(replica_id=ReplicaId("m-0"), model_id=ModelId("m"), reason="refused")


class Consumer:
    """A durable consumer whose handler does what `behave` says for the n-th delivery."""

    def __init__(self, bus: Bus, url: str, behave: Callable[[int], None]) -> None:
        self.deliveries = 0
        self.handled: list[Envelope[UpstreamSuspectedV1]] = []
        self._bus = bus
        self._broker = new_broker(SecretStr(url), name="test-consumer")

        @durable(self._broker, HEALTH_SUSPECTED)
        async def handle(envelope: Envelope[UpstreamSuspectedV1]) -> None:
            self.deliveries += 1
            behave(self.deliveries)
            self.handled.append(envelope)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(run_broker(self._broker, self._bus, [HEALTH_SUSPECTED]))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.01)


async def pending(bus: Bus) -> int:
    info = await bus.js.consumer_info(EVENTS, HEALTH_SUSPECTED.durable)
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


async def dead_letters(bus: Bus) -> int:
    return (await bus.js.stream_info(DLQ)).state.messages


async def test_a_transient_error_is_delivered_again_later(bus: Bus, fresh_nats_url: str) -> None:
    def fail_twice(delivery: int) -> None:
        if delivery < 3:
            raise TransientError("database away")

    async with Consumer(bus, fresh_nats_url, fail_twice) as consumer:
        await EventPublisher(bus, source="cortex/test/1").publish(SUSPECTED, aggregate_id="m-0")
        await consumer.until(lambda: len(consumer.handled) == 1)
        assert consumer.deliveries == 3
        assert consumer.handled[0].data == SUSPECTED
    assert await pending(bus) == 0
    assert await dead_letters(bus) == 0


async def test_a_bug_in_the_handler_does_not_lose_the_message(bus: Bus, fresh_nats_url: str) -> None:
    def crash_once(delivery: int) -> None:
        if delivery == 1:
            raise KeyError("bug")

    async with Consumer(bus, fresh_nats_url, crash_once) as consumer:
        await EventPublisher(bus, source="cortex/test/1").publish(SUSPECTED, aggregate_id="m-0")
        await consumer.until(lambda: len(consumer.handled) == 1)
    assert await dead_letters(bus) == 0


async def test_permanent_and_malformed_go_to_the_dead_letter_stream_once(bus: Bus, fresh_nats_url: str) -> None:
    def refuse(delivery: int) -> None:
        raise PermanentError("never")

    async with Consumer(bus, fresh_nats_url, refuse) as consumer:
        await EventPublisher(bus, source="cortex/test/1").publish(SUSPECTED, aggregate_id="m-0")
        await bus.js.publish("upstream.suspected", b"not json, and a secret: hunter2")
        async with asyncio.timeout(10):
            while await dead_letters(bus) < 2 or await pending(bus):
                await asyncio.sleep(0.02)
        assert consumer.deliveries == 1
    headers = [(await bus.js.get_msg(DLQ, seq=seq)).headers or {} for seq in (1, 2)]
    assert {header["Cortex-Subject"] for header in headers} == {"upstream.suspected"}
    assert not any("hunter2" in header["Cortex-Error"] for header in headers)


async def test_an_exhausted_message_is_copied_to_the_dead_letter_stream_once(bus: Bus) -> None:
    await EventPublisher(bus, source="cortex/test/1").publish(SUSPECTED, aggregate_id="m-0")
    advisory = MaxDeliveriesAdvisory(stream=EVENTS, consumer="health-suspected", stream_seq=1, deliveries=20)
    await bury(bus, advisory)
    await bury(bus, advisory)
    assert await dead_letters(bus) == 1


async def test_the_same_event_id_is_stored_once(bus: Bus) -> None:
    publisher, event_id = EventPublisher(bus, source="cortex/test/1"), uuid7()
    for _ in range(3):
        await publisher.publish(SUSPECTED, aggregate_id="m-0", event_id=event_id)
    assert (await bus.js.stream_info(EVENTS)).state.messages == 1


async def test_consumer_resumes_after_the_server_was_killed(
    nats_server: NatsServer, bus: Bus, fresh_nats_url: str
) -> None:
    async with Consumer(bus, fresh_nats_url, lambda delivery: None) as consumer:
        publisher = EventPublisher(bus, source="cortex/test/1")
        await publisher.publish(SUSPECTED, aggregate_id="m-0")
        await consumer.until(lambda: len(consumer.handled) == 1)
        nats_server.kill()
        await consumer.until(lambda: not bus.connected)
        assert not await publisher.try_publish(SUSPECTED, aggregate_id="m-0")
        nats_server.start()
        await consumer.until(lambda: bus.connected)
        await publisher.publish(SUSPECTED, aggregate_id="m-0")
        await consumer.until(lambda: len(consumer.handled) == 2)


async def test_provisioning_is_idempotent_and_restores_drifted_limits(bus: Bus) -> None:
    info = await bus.js.stream_info(EVENTS)
    drifted = info.config.evolve(max_age=7200.0)
    await bus.js.update_stream(drifted)
    await provision(bus.js)
    await provision(bus.js)
    assert (await bus.js.stream_info(EVENTS)).config.max_age == info.config.max_age


async def test_one_holder_at_a_time_and_the_successor_takes_over(bus: Bus) -> None:
    first, second = (Lease(bus, "job", holder=name, ttl_s=1) for name in ("first", "second"))
    first_task = asyncio.create_task(first.run())
    await asyncio.wait_for(first.wait_held(), timeout=5)
    second_task = asyncio.create_task(second.run())
    await asyncio.sleep(1.5)
    assert (first.held, second.held) == (True, False)
    fence = first.fence or 0
    first_task.cancel()
    await asyncio.wait_for(second.wait_held(), timeout=5)
    assert first.fence is None
    assert (second.fence or 0) > fence
    second_task.cancel()
    await asyncio.gather(first_task, second_task, return_exceptions=True)


async def test_a_holder_that_stopped_renewing_loses_the_lease(bus: Bus) -> None:
    silent, successor = Lease(bus, "job", holder="silent", ttl_s=1), Lease(bus, "job", holder="successor", ttl_s=1)
    kv = await bus.js.key_value("leases")
    await kv.create("job", silent._document(), msg_ttl=1)
    task = asyncio.create_task(successor.run())
    await asyncio.wait_for(successor.wait_held(), timeout=6)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_instance_that_comes_back_under_its_name_need_not_wait(bus: Bus) -> None:
    before, after = (Lease(bus, "job", holder="host-1", ttl_s=30) for _ in range(2))
    kv = await bus.js.key_value("leases")
    await kv.create("job", before._document(), msg_ttl=30)
    task = asyncio.create_task(after.run())
    await asyncio.wait_for(after.wait_held(), timeout=2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
