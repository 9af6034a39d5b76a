"""The program itself: its commands, its exit codes, its last words."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from cortex_testing.servers import NatsServer, free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@pytest.fixture
def environment(postgres_dsn: str, nats_server: NatsServer, secret_key: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CORTEX_")}
    return kept | {
        "CORTEX_NATS_URL": nats_server.url,
        "CORTEX_SECRET_KEY": secret_key,
        "CORTEX_REGISTRY_DATABASE_URL": postgres_dsn,
        "CORTEX_REGISTRY_ADMIN_TOKEN": "an-admin-token-for-tests",
        "CORTEX_REGISTRY_PORT": str(free_port()),
    }


async def start(environment: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cortex_registry",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


async def finish(process: asyncio.subprocess.Process) -> tuple[int | None, list[dict[str, Any]]]:
    _, stderr = await asyncio.wait_for(process.communicate(), timeout=40)
    return process.returncode, [json.loads(line) for line in stderr.decode().splitlines() if line.startswith("{")]


async def test_it_refuses_an_empty_database_then_migrates_serves_and_stops(
    environment: dict[str, str], eventually: Callable[..., Any]
) -> None:
    code, logs = await finish(await start(environment))
    assert code == 1
    wrong = next(entry for entry in logs if entry["event"] == "schema_wrong")
    assert "migrate" in wrong["fix"]
    assert (await finish(await start(environment, "migrate", "--check")))[0] == 1
    assert (await finish(await start(environment, "migrate")))[0] == 0
    assert (await finish(await start(environment, "migrate", "--check")))[0] == 0

    process = await start(environment)
    url = f"http://127.0.0.1:{environment['CORTEX_REGISTRY_PORT']}"
    headers = {"Authorization": f"Bearer {environment['CORTEX_REGISTRY_ADMIN_TOKEN']}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:

        async def ready() -> bool:
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(ready, 20)
        made = await client.post("/admin/models", json={"name": "m", "repo_id": "a/b"})
        assert made.status_code == 201
    started = asyncio.get_running_loop().time()
    process.send_signal(signal.SIGTERM)
    code, logs = await finish(process)
    assert code == 0, logs[-5:]
    assert asyncio.get_running_loop().time() - started < 10
    assert environment["CORTEX_REGISTRY_ADMIN_TOKEN"] not in json.dumps(logs)
