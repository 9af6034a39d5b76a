"""A real registry in this process, on a real Postgres and a real JetStream."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import nats
import pytest
import uvicorn
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import SecretStr

from cortex_contracts import subjects
from cortex_contracts.base import ModelId, NodeId, replica_id
from cortex_contracts.documents import GgufDocumentV1, ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import EngineType, ReplicaState, RuntimeKind, Verdict
from cortex_contracts.rpc import InspectRequestV1, InspectResultV1, RpcError, RpcReply
from cortex_kit.bus import split_url
from cortex_registry.adapters.migrate_command import run_migrations
from cortex_registry.app import build
from cortex_registry.settings import Settings
from cortex_testing.servers import NatsServer

ADMIN_TOKEN = "an-admin-token-for-tests"


@dataclass
class Registry:
    """A running registry."""

    settings: Settings
    client: httpx.AsyncClient
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    app: Any = None
    drain: Callable[[], Any] = field(default=lambda: None)

    async def ready(self, timeout: float = 15.0) -> None:
        """Wait until /readyz says so."""
        await eventually(lambda: self._is_ready(), timeout)

    async def _is_ready(self) -> bool:
        self.raise_if_dead()
        return (await self.client.get("/readyz")).status_code == 200

    def raise_if_dead(self) -> None:
        for task in self.tasks:
            if task.done():
                task.result()

    async def kill(self) -> None:
        """Cancel every task; more than once, because wait_for on Python 3.11 may swallow a cancellation."""
        self.raise_if_dead()
        running = set(self.tasks)
        deadline = asyncio.get_running_loop().time() + 20
        while running:
            assert asyncio.get_running_loop().time() < deadline, running
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=0.2)
        self.tasks = []


async def eventually(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Poll until the condition (sync or async) is true; returns its value."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        result = condition()
        value = await result if asyncio.iscoroutine(result) else result
        if value:
            return value
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not true within {timeout} s")
        await asyncio.sleep(0.02)


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    return eventually


@pytest.fixture
async def migrated_dsn(postgres_dsn: str) -> str:
    assert await run_migrations(SecretStr(postgres_dsn), only_check=False, wait_s=5)
    return postgres_dsn


@pytest.fixture
def make_settings(
    migrated_dsn: str, nats_server: NatsServer, secret_key: str, tmp_path: Path
) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        values: dict[str, Any] = {
            "nats_url": nats_server.url,
            "secret_key": secret_key,
            "database_url": migrated_dsn,
            "admin_token": ADMIN_TOKEN,
            "models_dir": tmp_path,
            "port": 0,
            "instance": f"test-{os.urandom(3).hex()}",
            "outbox_poll_s": 0.2,
            "state_settle_s": 0.05,
            "state_grace_s": 0.1,
            "usage_batch_wait_s": 0.02,
            "inspector_timeout_s": 2.0,
            "logs_timeout_s": 2.0,
        }
        return Settings(**(values | changes))

    return make


@asynccontextmanager
async def run_registry(settings: Settings) -> AsyncGenerator[Registry]:
    async with build(settings) as service:
        transport = httpx.ASGITransport(app=service.http, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://registry", headers=headers) as client:
            registry = Registry(settings, client, app=service.http, drain=service.drain)
            registry.tasks = [asyncio.ensure_future(task()) for task in service.tasks.values()]
            try:
                yield registry
            finally:
                await registry.kill()


@pytest.fixture
def start_registry(
    make_settings: Callable[..., Settings],
) -> Callable[..., AbstractAsyncContextManager[Registry]]:
    """`async with start_registry(**settings) as registry`."""
    return lambda **changes: run_registry(make_settings(**changes))


@asynccontextmanager
async def listening(registry: Registry) -> AsyncGenerator[str]:
    """The registry behind a real HTTP server, for what is more than one answer; yields its address."""
    config = uvicorn.Config(registry.app, host="127.0.0.1", port=0, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    serving = asyncio.ensure_future(server._serve([listener]))
    try:
        await eventually(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await serving


@pytest.fixture
def serve() -> Callable[..., AbstractAsyncContextManager[str]]:
    """`async with serve(registry) as url`."""
    return listening


@pytest.fixture
async def registry(start_registry: Callable[..., AbstractAsyncContextManager[Registry]]) -> AsyncIterator[Registry]:
    async with start_registry() as running:
        await running.ready()
        yield running


@pytest.fixture
async def nc(nats_server: NatsServer) -> AsyncIterator[Client]:
    address, user, password = split_url(SecretStr(nats_server.url))
    client = await nats.connect(address, user=user, password=password, max_reconnect_attempts=-1, reconnect_time_wait=1)
    yield client
    await client.close()


@pytest.fixture
async def database(migrated_dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(migrated_dsn)
    yield connection
    await connection.close()


def gguf(path: str) -> GgufDocumentV1:
    return GgufDocumentV1(
        aggregateversion=1,
        identity="abc",
        path=path,
        file_size=10,
        gguf_version=3,
        architecture="llama",
        parameters=1,
        quantization="Q4_1",
        bits_per_weight=4.5,
        tensor_count=1,
    )


@pytest.fixture
async def inspector(nc: Client) -> list[str]:
    """Answers as the GGUF inspector does; returns the paths it was asked for."""
    asked: list[str] = []

    async def answer(message: Msg) -> None:
        path = InspectRequestV1.model_validate_json(message.data).path
        asked.append(path)
        if path.startswith("missing"):
            reply = RpcReply[InspectResultV1](error=RpcError(code="file_not_found", message=f"there is no {path}"))
        else:
            found = path if path.endswith(".gguf") else f"{path}/model-00001-of-00002.gguf"
            reply = RpcReply[InspectResultV1](result=InspectResultV1(path=found, gguf=gguf(found)))
        await message.respond(reply.model_dump_json().encode())

    await nc.subscribe(subjects.RPC_GGUF_INSPECT, cb=answer)
    await nc.flush()
    return asked


@pytest.fixture
def put_replica(nc: Client) -> Callable[..., Any]:
    """Write a replica, and perhaps a verdict, as orchestrator and health do."""

    async def put(
        model_id: str, state: str, *, verdict: str | None = None, node: str = "node", version: int = 1
    ) -> None:
        now = datetime.now(UTC)
        js = nc.jetstream()
        replica = ReplicaDocumentV1(
            aggregateversion=version,
            id=replica_id(ModelId(model_id), 0),
            model_id=ModelId(model_id),
            ordinal=0,
            engine_type=EngineType.LLAMACPP,
            node=NodeId(node),
            runtime=RuntimeKind.PROCESS,
            spec_hash="hash",
            state=ReplicaState(state),
            since=now,
            endpoint="http://127.0.0.1:1",
        )
        await (await js.key_value("replicas")).put(replica.id, replica.model_dump_json().encode())
        if verdict is not None:
            document = VerdictDocumentV1(
                aggregateversion=version,
                replica_id=replica.id,
                model_id=ModelId(model_id),
                spec_hash="hash",
                endpoint="http://127.0.0.1:1",
                verdict=Verdict(verdict),
                since=now,
            )
            await (await js.key_value("verdicts")).put(replica.id, document.model_dump_json().encode())

    return put


CHEAP_PASSWORDS = {"password_memory_kib": 64, "password_time_cost": 1, "password_parallelism": 1}
GOOD_PASSWORD = "correct zebra staples 41"


class Browser:
    """Keeps cookies and sends the CSRF token, as the console does; has no bearer token."""

    def __init__(self, registry: Registry) -> None:
        transport = registry.client._transport
        self.client = httpx.AsyncClient(transport=transport, base_url="http://registry")

    async def login(self, username: str, password: str = GOOD_PASSWORD, **headers: str) -> httpx.Response:
        body = {"username": username, "password": password}
        return await self.client.post("/admin/auth/login", json=body, headers=headers)

    async def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"X-CSRF-Token": self.client.cookies.get("cortex_csrf") or ""} | options.pop("headers", {})
        return await self.client.request(method, f"/admin{path}", headers=headers, **options)

    async def settle(self, username: str, one_time: str, password: str = GOOD_PASSWORD) -> None:
        """Sign in for the first time."""
        assert (await self.login(username, one_time)).status_code == 200
        body = {"current_password": one_time, "new_password": password}
        changed = await self("POST", "/auth/password", json=body)
        assert changed.status_code == 200, changed.text


@pytest.fixture
async def people(start_registry: Callable[..., AbstractAsyncContextManager[Registry]]) -> AsyncIterator[Registry]:
    """A registry whose password hashes cost little."""
    async with start_registry(**CHEAP_PASSWORDS) as running:
        await running.ready()
        yield running


@pytest.fixture
def new_browser() -> Callable[[Registry], Browser]:
    """`new_browser(registry)`: nobody has signed in yet."""
    return Browser


@pytest.fixture
def sign_in() -> Callable[..., Any]:
    """`browser, user = await sign_in(registry, username, role)`: a new user who has chosen a password."""

    async def make(registry: Registry, username: str, role: str = "viewer", **fields: Any) -> tuple[Browser, Any]:
        made = await registry.client.post("/admin/users", json={"username": username, "role": role, **fields})
        assert made.status_code == 201, made.text
        browser = Browser(registry)
        await browser.settle(username, made.json()["one_time_password"])
        return browser, made.json()

    return make
