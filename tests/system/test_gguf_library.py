"""A split model, from a folder with three files to an answer: found, shown complete, created, served from part 1."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from pydantic import SecretStr

from cortex_contracts.base import ContractModel
from cortex_contracts.library import (
    EntryState,
    LibraryV1,
    MergeRequestV1,
    MergeStartedV1,
    MergeState,
    ScanRequestV1,
)
from cortex_contracts.subjects import RPC_GGUF_MERGE, RPC_GGUF_SCAN
from cortex_kit.bus import Bus
from cortex_testing.gguf_split import GgufFile, split_gguf
from cortex_testing.stack import Stack, eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

FIRST = "split/smollm2-00001-of-00003.gguf"


def ask(stack: Stack, subject: str, request: ContractModel, reply: type[ContractModel]) -> ContractModel:
    """One request to the inspector over the stack's NATS."""

    async def once() -> ContractModel:
        bus = Bus(SecretStr(stack.ready["nats_url"]), name="test")
        task = asyncio.create_task(bus.run())
        try:
            await asyncio.wait_for(bus.wait_connected(), timeout=10)
            return await bus.request(subject, request, reply, timeout=30)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return asyncio.run(once())


@pytest.fixture
def split_model(stack: Stack, smollm2_gguf: Path):
    folder = stack.models / "split"
    yield split_gguf(smollm2_gguf, folder, 3, prefix="smollm2")
    shutil.rmtree(folder)


def test_a_split_model_is_found_created_and_served_from_its_first_part(stack: Stack, split_model: list[Path]) -> None:
    shown = json.loads(stack.cli("gguf", "scan", str(stack.models), "--json"))
    (entry,) = [entry for entry in shown["entries"] if entry["path"] == FIRST]
    assert (entry["state"], entry["parts"]["present"], entry["parts"]["missing"]) == ("ready", 3, [])
    assert "ready 3/3" in stack.cli("gguf", "scan", str(stack.models))

    library = ask(stack, RPC_GGUF_SCAN, ScanRequestV1(path="split", refresh=True), LibraryV1)
    assert isinstance(library, LibraryV1)
    assert [(found.path, found.state) for found in library.entries] == [(FIRST, EntryState.READY)]

    stack.cli("model", "create", "in-parts", "--engine", "llamacpp", "--local-path", "split")
    stack.cli("model", "start", "in-parts")
    assert stack.model("in-parts")["state"] == "running"
    assert any(any(word.endswith(FIRST) for word in engine.cmdline()) for engine in stack.engines())
    assert stack.ask("in-parts").strip()
    stack.cli("model", "stop", "in-parts")
    eventually(lambda: stack.model("in-parts")["state"] == "stopped")
    stack.cli("model", "delete", "in-parts", "--yes")


def test_a_part_that_is_missing_is_named_and_no_model_is_made_of_the_rest(
    stack: Stack, split_model: list[Path]
) -> None:
    split_model[1].unlink()
    assert "smollm2-00002-of-00003.gguf" in stack.cli("gguf", "scan", str(stack.models))
    body = {"name": "bad", "engine_type": "llamacpp", "local_path": FIRST}
    response = stack.admin("POST", "/admin/models", body)
    assert response.json()["code"] == "split_incomplete"


def test_the_service_merges_on_request(stack: Stack, split_model: list[Path], smollm2_gguf: Path) -> None:
    def merged() -> MergeStartedV1 | None:
        answer = ask(stack, RPC_GGUF_MERGE, MergeRequestV1(path=FIRST), MergeStartedV1)
        assert isinstance(answer, MergeStartedV1)
        assert answer.state is not MergeState.FAILED, answer.reason
        return answer if answer.state is MergeState.DONE else None

    answer = eventually(merged)
    assert GgufFile(stack.models / answer.path).tensor_data() == GgufFile(smollm2_gguf).tensor_data()
