"""The users of deploy/nats on a real server: each service can do its work, and nobody can do another's."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.errors import Error as NatsError
from pydantic import SecretStr

from cortex_contracts import permissions
from cortex_contracts.base import KeyId
from cortex_contracts.documents import KeyDocumentV1
from cortex_contracts.events import ModelDemandedV1, UsageRecordedV1
from cortex_contracts.streams import KEYS, VERDICTS
from cortex_kit.bus import Bus
from cortex_kit.errors import TransientError
from cortex_kit.events import EventPublisher
from cortex_kit.kv import KVStore, KVView
from cortex_kit.lease import Lease
from cortex_kit.provision import provision
from cortex_testing import binaries
from cortex_testing.servers import free_port, wait_for_port

pytestmark = pytest.mark.integration
DEPLOY = Path(__file__).parents[4] / "deploy" / "nats"
PASSWORD = "p4ssword-of-a-test"
REFUSED_S = 1.0
"""A server says nothing to who may not publish: so long it is waited for."""


def test_the_committed_users_are_those_of_the_code() -> None:
    assert (DEPLOY / "users.conf").read_text() == permissions.render_users()


def test_every_durable_has_a_consumer() -> None:
    assert permissions.consumers_without_owner() == ()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The deployed configuration, but for its addresses and its folder."""
    chosen = free_port()
    text = (DEPLOY / "nats.conf").read_text()
    text = text.replace("0.0.0.0:4222", f"127.0.0.1:{chosen}").replace("http: 0.0.0.0:8222", "")
    (tmp_path / "nats.conf").write_text(text.replace("/data", str(tmp_path / "store")))
    (tmp_path / "users.conf").write_text((DEPLOY / "users.conf").read_text())
    users = [access.service for access in permissions.ACCESS] + [permissions.OPERATOR]
    env = {**os.environ, "NATS_SERVER_NAME": "test"}
    env |= {permissions.password_variable(user): PASSWORD for user in users}
    command = [binaries.nats_server(), "-c", str(tmp_path / "nats.conf")]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(chosen, process)
        yield chosen
    finally:
        process.kill()
        process.wait(timeout=10)


@pytest.fixture
async def connect(port: int) -> AsyncIterator[Callable[[str], object]]:
    async with AsyncExitStack() as stack:

        async def as_user(user: str) -> Bus:
            return await stack.enter_async_context(running_bus(port, user))

        registry = await as_user("registry")
        await provision(registry.js)
        yield as_user


@asynccontextmanager
async def running_bus(port: int, user: str) -> AsyncIterator[Bus]:
    bus = Bus(SecretStr(f"nats://{user}:{PASSWORD}@127.0.0.1:{port}"), name=user)
    task = asyncio.create_task(bus.run())
    try:
        async with asyncio.timeout(10):
            await bus.wait_connected()
        yield bus
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def key() -> KeyDocumentV1:
    return KeyDocumentV1(id=KeyId("k"), digest="d" * 64, name="k", aggregateversion=1)


async def test_the_gateway_reads_what_the_registry_wrote_and_can_write_nothing(
    connect: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, gateway = await connect("registry"), await connect("gateway")
    await KVStore(registry, KEYS).put("k", key())
    view = KVView(gateway, KEYS, KeyDocumentV1)
    task = asyncio.create_task(view.run())
    try:
        async with asyncio.timeout(10):
            await view.wait_synced()
        assert view.items["k"] == key()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    monkeypatch.setattr("cortex_kit.bus.API_TIMEOUT_S", REFUSED_S)
    refused = await asyncio.gather(
        *(KVStore(gateway, bucket).put("k", key()) for bucket in (KEYS, VERDICTS)), return_exceptions=True
    )
    assert [type(error) for error in refused] == [TransientError, TransientError]
    demanded = ModelDemandedV1(model_id="m", served_model_name="m")
    await EventPublisher(gateway, source="cortex/gateway/test").publish(demanded, aggregate_id="m")


@pytest.mark.parametrize("service", ["registry", "orchestrator", "health", "gguf-inspector"])
async def test_services_that_work_alone_can_hold_a_lease(connect: Callable, service: str) -> None:
    lease = Lease(await connect(service), f"{service}-test", holder="a", ttl_s=2)
    task = asyncio.create_task(lease.run())
    try:
        async with asyncio.timeout(10):
            await lease.wait_held()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_only_the_gateway_records_usage(connect: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"request_id": "r", "key_id": "k", "model": "m", "route": "/v1", "stream": False, "status": 200}
    fields |= {"outcome": "completed", "duration_ms": 1, "started_at": "2026-11-22T00:00:00Z"}
    record = UsageRecordedV1.model_validate(fields)
    publishers = [
        EventPublisher(await connect(service), source=f"cortex/{service}/test")
        for service in ("orchestrator", "health", "gguf-inspector")
    ]
    monkeypatch.setattr("cortex_kit.bus.API_TIMEOUT_S", REFUSED_S)
    stored = await asyncio.gather(*(publisher.try_publish(record, aggregate_id="r") for publisher in publishers))
    assert stored == [False, False, False]
    await EventPublisher(await connect("gateway"), source="cortex/gateway/test").publish(record, aggregate_id="r")


async def test_nobody_listens_to_the_inbox_or_the_subjects_of_another(port: int, connect: Callable) -> None:
    del connect
    errors: list[Exception] = []

    async def on_error(error: Exception) -> None:
        errors.append(error)

    client = await nats.connect(f"nats://127.0.0.1:{port}", user="gateway", password=PASSWORD, error_cb=on_error)
    try:
        for subject in ("_INBOX_registry.>", "rpc.gguf.>", "$KV.keys.>", ">"):
            await client.subscribe(subject)
            await client.flush()
        async with asyncio.timeout(5):
            while len(errors) < 4:
                await asyncio.sleep(0.01)
        assert all("permissions violation" in str(error).lower() for error in errors)
    finally:
        await client.close()


async def test_the_operator_hears_events_and_can_say_nothing(port: int, connect: Callable) -> None:
    gateway = await connect("gateway")
    client = await nats.connect(f"nats://127.0.0.1:{port}", user="operator", password=PASSWORD, error_cb=_ignore)
    try:
        heard = await client.subscribe("model.>")
        await client.flush()
        demanded = ModelDemandedV1(model_id="m", served_model_name="m")
        await EventPublisher(gateway, source="cortex/gateway/test").publish(demanded, aggregate_id="m")
        assert (await heard.next_msg(timeout=5)).subject == "model.demanded"
        with pytest.raises(NatsError):
            await client.jetstream(timeout=0.5).publish("model.demanded", b"{}")
    finally:
        await client.close()


async def _ignore(error: Exception) -> None:
    del error
