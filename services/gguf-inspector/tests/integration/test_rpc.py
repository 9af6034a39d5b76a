"""The whole service on a real NATS: request, reply, document, events."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from cortex_contracts.documents import GgufDocumentV1
from cortex_contracts.rpc import InspectRequestV1, InspectResultV1
from cortex_contracts.streams import GGUF
from cortex_contracts.subjects import RPC_GGUF_INSPECT
from cortex_gguf_inspector.app import build
from cortex_gguf_inspector.settings import Settings
from cortex_kit.bus import Bus
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.provision import provision
from cortex_testing.servers import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@pytest.fixture
async def bus(fresh_nats_url: str) -> AsyncIterator[Bus]:
    bus = Bus(SecretStr(fresh_nats_url), name="test")
    task = asyncio.create_task(bus.run())
    await asyncio.wait_for(bus.wait_connected(), timeout=10)
    await provision(bus.js)
    yield bus
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def service(bus: Bus, fresh_nats_url: str, tmp_path: Path, secret_key: str) -> AsyncIterator[Path]:
    """The service in this process; gives its models root."""
    root = tmp_path / "models"
    root.mkdir()
    settings = Settings(nats_url=SecretStr(fresh_nats_url), secret_key=SecretStr(secret_key), models_dir=root)
    async with build(settings) as service, asyncio.TaskGroup() as group:
        tasks = [group.create_task(task()) for task in service.tasks.values()]
        await _until_it_answers(bus)
        yield root
        for task in reversed(tasks):
            task.cancel()


async def _until_it_answers(bus: Bus) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await ask(bus, "none.gguf")
            except TransientError:
                await asyncio.sleep(0.05)
            except DomainError:
                return


async def ask(bus: Bus, path: str) -> InspectResultV1:
    return await bus.request(RPC_GGUF_INSPECT, InspectRequestV1(path=path), InspectResultV1, timeout=10)


async def test_a_real_model_is_inspected_stored_and_announced(bus: Bus, service: Path, smollm2_gguf: Path):
    (service / "smol").mkdir()
    shutil.copy(smollm2_gguf, service / "smol" / "smollm2.gguf")
    result = await ask(bus, "smol")
    assert result.path == "smol/smollm2.gguf"
    assert result.gguf.parameters == 134_515_008
    entry = await (await bus.js.key_value(GGUF.name)).get(result.gguf.identity)
    assert GgufDocumentV1.model_validate_json(entry.value or b"") == result.gguf
    event = await bus.js.get_last_msg("EVENTS", "gguf.inspected")
    assert result.gguf.identity.encode() in (event.data or b"")


@pytest.mark.parametrize(
    ("path", "code"),
    [("missing.gguf", "file_not_found"), ("../x.gguf", "path_outside_models_root"), ("page.gguf", "not_gguf")],
)
async def test_a_refusal_reaches_the_caller(path: str, code: str, bus: Bus, service: Path):
    (service / "page.gguf").write_text("<!doctype html><html>")
    with pytest.raises(DomainError) as caught:
        await ask(bus, path)
    assert caught.value.code == code
    event = await bus.js.get_last_msg("EVENTS", "gguf.rejected")
    assert code.encode() in (event.data or b"")


async def test_a_malformed_request_is_answered(bus: Bus, service: Path):
    answer = await bus.nc.request(RPC_GGUF_INSPECT, b"not json", timeout=10)
    assert b"invalid_request" in answer.data


async def test_the_program_starts_answers_and_stops_cleanly(
    bus: Bus, fresh_nats_url: str, tmp_path: Path, secret_key: str
):
    environment = os.environ | {
        "CORTEX_NATS_URL": fresh_nats_url,
        "CORTEX_SECRET_KEY": secret_key,
        "CORTEX_MODELS_DIR": str(tmp_path),
        "CORTEX_INSPECTOR_PORT": str(free_port()),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cortex_gguf_inspector", env=environment, stderr=asyncio.subprocess.PIPE
    )
    await _until_it_answers(bus)
    process.terminate()
    _, log = await asyncio.wait_for(process.communicate(), timeout=20)
    assert process.returncode == 0, log.decode()
