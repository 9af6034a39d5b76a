"""Two members under the deployed NATS permissions: they hear each other, write verdicts, and hand suspicions on."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from cortex_contracts import permissions
from cortex_contracts.base import ModelId, replica_id
from cortex_contracts.documents import ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.events import UpstreamSuspectedV1
from cortex_contracts.streams import REPLICAS, VERDICTS
from cortex_health.app import build
from cortex_health.settings import Settings
from cortex_kit.bus import Bus
from cortex_kit.events import EventPublisher
from cortex_kit.kv import KVStore, KVView
from cortex_kit.provision import provision
from cortex_testing import binaries
from cortex_testing.servers import free_port, wait_for_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
DEPLOY = Path(__file__).parents[4] / "deploy" / "nats"
PASSWORD = "p4ssword-of-a-test"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The deployed configuration, but for its addresses and its folder."""
    port = free_port()
    text = (DEPLOY / "nats.conf").read_text()
    text = text.replace("0.0.0.0:4222", f"127.0.0.1:{port}").replace("http: 0.0.0.0:8222", "")
    (tmp_path / "nats.conf").write_text(text.replace("/data", str(tmp_path / "store")))
    (tmp_path / "users.conf").write_text((DEPLOY / "users.conf").read_text())
    users = [access.service for access in permissions.ACCESS] + [permissions.OPERATOR]
    environment = {**os.environ, "NATS_SERVER_NAME": "test"}
    environment |= {permissions.password_variable(user): PASSWORD for user in users}
    command = [binaries.nats_server(), "-c", str(tmp_path / "nats.conf")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_port(port, process)
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait(timeout=10)


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


async def until(condition: Callable[[], bool], within: float = 30.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.02)


async def test_two_members_work_together_with_the_rights_they_have(
    address: str, secret_key: str, make_replica: Callable[..., ReplicaDocumentV1]
):
    def url(user: str) -> SecretStr:
        return SecretStr(f"nats://{user}:{PASSWORD}@{address}")

    hits: dict[int, int] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        port = writer.get_extra_info("sockname")[1]
        hits[port] = hits.get(port, 0) + 1
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    buses = {user: Bus(url(user), name=user) for user in ("registry", "orchestrator", "gateway")}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(*(bus.run for bus in buses.values())))
        for bus in buses.values():
            await asyncio.wait_for(bus.wait_connected(), 10)
        await provision(buses["registry"].js)
        replicas = KVStore[ReplicaDocumentV1](buses["orchestrator"], REPLICAS)
        ports: dict[str, int] = {}
        for number in range(8):
            server = await asyncio.start_server(answer, "127.0.0.1", 0)
            stack.callback(server.close)
            model = ModelId(f"0197f2a0-0000-7000-8000-{number:012x}")
            port = server.sockets[0].getsockname()[1]
            endpoint = f"http://127.0.0.1:{port}"
            replica = make_replica(id=replica_id(model, 0), model_id=model, endpoint=endpoint, since=datetime.now(UTC))
            ports[replica.id] = port
            await replicas.put(replica.id, replica)
        verdicts = KVView(buses["gateway"], VERDICTS, VerdictDocumentV1)
        await stack.enter_async_context(running(verdicts.run))
        for name in ("one", "two"):
            settings = Settings(
                nats_url=url("health"),
                secret_key=SecretStr(secret_key),
                instance=name,
                healthy_interval_s=600,
                doubtful_interval_s=600,
            )
            service = await stack.enter_async_context(build(settings))
            await stack.enter_async_context(running(*service.tasks.values()))
        await until(lambda: len(verdicts.items) == 8)
        await until(lambda: sum(hits.values()) >= 8)
        await asyncio.sleep(1.5)  # both have seen each other
        publisher = EventPublisher(buses["gateway"], source="cortex/gateway/test")
        for replica_key, port in ports.items():
            before = hits[port]
            event = UpstreamSuspectedV1(
                replica_id=replica_key,  # type: ignore[arg-type]
                model_id=ModelId(replica_key[:-2]),
                reason="connection refused",
            )
            await publisher.publish(event, aggregate_id=replica_key)
            await until(lambda port=port, before=before: hits[port] > before)
    assert {document.prober is not None for document in verdicts.items.values()} == {True}
