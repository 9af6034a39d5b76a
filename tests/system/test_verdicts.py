"""From an engine that dies to the routing tables of all gateways, on a real NATS."""

import asyncio
import os
import signal
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from nats.aio.msg import Msg
from pydantic import SecretStr

from cortex_contracts.base import ModelId, NodeId, replica_id
from cortex_contracts.documents import KeyDocumentV1, ModelDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import EngineType, ReplicaState, RuntimeKind
from cortex_contracts.envelope import Envelope
from cortex_contracts.events import UpstreamSuspectedV1, UpstreamUnhealthyV1
from cortex_contracts.streams import KEYS, MODELS, REPLICAS, VERDICTS
from cortex_gateway.domain.routing import Keys, RoutingTable
from cortex_gateway.projection import Projection, Views
from cortex_kit.bus import Bus
from cortex_kit.clock import SystemClock
from cortex_kit.events import EventPublisher
from cortex_kit.ids import uuid7
from cortex_kit.kv import KVStore, KVView
from cortex_kit.provision import provision
from cortex_testing.servers import NatsServer, free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
GATEWAYS, KILLS = 3, 15


class Gateway:
    """The gateway's own projection on its own connection; notes when each replica left its table."""

    def __init__(self, url: str) -> None:
        self.bus = Bus(SecretStr(url), name="gateway")
        self.views = Views(
            KVView(self.bus, MODELS, ModelDocumentV1),
            KVView(self.bus, KEYS, KeyDocumentV1),
            KVView(self.bus, REPLICAS, ReplicaDocumentV1),
            KVView(self.bus, VERDICTS, VerdictDocumentV1),
        )
        self.projection = Projection(self.views, Keys(lambda *_: "key", lambda _: None), SystemClock())
        self.projection.on_swap(self._on_swap)
        self.targets: frozenset[str] = frozenset()
        self.left: dict[str, float] = {}

    def tasks(self):
        views = self.views
        followed = [view.run for view in (views.models, views.keys, views.replicas, views.verdicts)]
        return [self.bus.run, *followed, self.projection.run]

    def _on_swap(self, table: RoutingTable) -> None:
        now = frozenset(target.replica_id for route in table.routes for target in route.targets)
        for gone in self.targets - now:
            self.left[gone] = asyncio.get_running_loop().time()
        self.targets = now


@asynccontextmanager
async def running(*tasks) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        started = [group.create_task(task()) for task in tasks]
        yield
        running_still = set(started)
        while running_still:  # nats-py's wait_for may swallow a cancellation on Python 3.11, as the runner knows
            for task in running_still:
                task.cancel()
            _, running_still = await asyncio.wait(running_still, timeout=1)


@asynccontextmanager
async def health(url: str, secret_key: str) -> AsyncIterator[None]:
    environment = os.environ | {"CORTEX_NATS_URL": url, "CORTEX_SECRET_KEY": secret_key}
    environment["CORTEX_HEALTH_PORT"] = str(free_port())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cortex_health", env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    yield
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await process.wait() == 0


async def new_engine(bus: Bus, number: int) -> tuple[ReplicaDocumentV1, asyncio.Server]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    model = ModelId(uuid7())
    fields = {"id": model, "name": f"m{number}", "served_model_name": f"m{number}", "engine_type": "llamacpp"}
    document = ModelDocumentV1.model_validate({"aggregateversion": 1, "desired_state": "running", **fields})
    await KVStore[ModelDocumentV1](bus, MODELS).put(model, document)
    replica = ReplicaDocumentV1(
        aggregateversion=1,
        id=replica_id(model, 0),
        model_id=model,
        ordinal=0,
        engine_type=EngineType.LLAMACPP,
        node=NodeId("test"),
        runtime=RuntimeKind.PROCESS,
        spec_hash="hash",
        state=ReplicaState.STARTED,
        since=datetime.now(UTC),
        endpoint=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
    )
    await KVStore[ReplicaDocumentV1](bus, REPLICAS).put(replica.id, replica)
    return replica, server


async def test_a_verdict_reaches_every_gateway_about_when_its_event_does(nats_server: NatsServer, secret_key: str):
    bus = Bus(SecretStr(nats_server.url), name="test")
    gateways = [Gateway(nats_server.url) for _ in range(GATEWAYS)]
    loop = asyncio.get_running_loop()
    events: dict[str, tuple[float, datetime]] = {}

    async def on_event(message: Msg) -> None:
        envelope = Envelope[UpstreamUnhealthyV1].model_validate_json(message.data)
        events[envelope.data.replica_id] = (loop.time(), envelope.time)

    async with running(bus.run):
        async with asyncio.timeout(20):
            await bus.wait_connected()
            await provision(bus.js)
        tasks = [task for gateway in gateways for task in gateway.tasks()]
        async with running(*tasks), health(nats_server.url, secret_key):
            engines = [await new_engine(bus, number) for number in range(KILLS)]
            await bus.nc.subscribe("upstream.unhealthy", cb=on_event)
            async with asyncio.timeout(60):
                while not all(len(gateway.targets) == KILLS for gateway in gateways):
                    await asyncio.sleep(0.05)
            after_event, after_decision, after_suspicion = [], [], []
            publisher = EventPublisher(bus, source="cortex/gateway/test")
            for replica, server in engines:
                server.close()
                await server.wait_closed()
                suspected = loop.time()
                event = UpstreamSuspectedV1(
                    replica_id=replica.id, model_id=replica.model_id, reason="connection refused"
                )
                await publisher.publish(event, aggregate_id=replica.id)
                async with asyncio.timeout(20):
                    while replica.id not in events or not all(replica.id in gateway.left for gateway in gateways):
                        await asyncio.sleep(0.001)
                last = max(gateway.left[replica.id] for gateway in gateways)
                heard, decided = events[replica.id]
                wall = datetime.now(UTC).timestamp() - loop.time()
                after_event.append((last - heard) * 1000)
                after_decision.append((last + wall - decided.timestamp()) * 1000)
                after_suspicion.append((last - suspected) * 1000)
    say = sys.stdout.write
    say(
        f"\n{KILLS} engines died, {GATEWAYS} gateways; until the last routing table was without it, ms (median, most):\n"
    )
    for name, values in (
        ("after its event was heard (less than 0: before)", after_event),
        ("after the decision", after_decision),
        ("after the first refused connection was told", after_suspicion),
    ):
        say(f"  {name:50} {statistics.median(values):7.1f} {max(values):7.1f}\n")
    assert statistics.median(after_event) < 50, "the promise, and it is kept by far on an idle machine"
