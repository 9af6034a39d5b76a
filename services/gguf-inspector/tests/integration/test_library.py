"""The library of a running service, and of two that share the work, on a real NATS."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from nats.js.errors import KeyNotFoundError, NoKeysError
from pydantic import SecretStr

from cortex_contracts.library import (
    EntryState,
    LibraryV1,
    MergeRequestV1,
    MergeStartedV1,
    MergeState,
    ScanRequestV1,
    VerifyRequestV1,
    VerifyResultV1,
)
from cortex_contracts.streams import GGUF
from cortex_contracts.subjects import RPC_GGUF_MERGE, RPC_GGUF_SCAN, RPC_GGUF_VERIFY
from cortex_gguf_inspector.app import build
from cortex_gguf_inspector.settings import Settings
from cortex_kit.bus import Bus
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.provision import provision
from cortex_testing.gguf_split import GgufFile, split_gguf

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


@pytest.fixture
async def bus(fresh_nats_url: str) -> AsyncIterator[Bus]:
    bus = Bus(SecretStr(fresh_nats_url), name="test")
    task = asyncio.create_task(bus.run())
    await asyncio.wait_for(bus.wait_connected(), timeout=10)
    await provision(bus.js)
    yield bus
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def instance(url: str, secret_key: str, root: Path, name: str, **more: object) -> AsyncIterator[None]:
    settings = Settings(
        nats_url=SecretStr(url),
        secret_key=SecretStr(secret_key),
        models_dir=root,
        instance=name,
        scan_interval_s=1,
        **more,  # pyright: ignore[reportArgumentType]
    )
    async with build(settings) as service, asyncio.TaskGroup() as group:
        tasks = [group.create_task(task()) for task in service.tasks.values()]
        yield
        assert service.drain is not None
        await service.drain()
        for task in reversed(tasks):
            task.cancel()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


async def scan(bus: Bus, **fields: object) -> LibraryV1:
    request = ScanRequestV1.model_validate(fields)
    async with asyncio.timeout(20):
        while True:
            try:
                return await bus.request(RPC_GGUF_SCAN, request, LibraryV1, timeout=10)
            except TransientError:
                await asyncio.sleep(0.05)


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.1)


async def subjects(bus: Bus) -> list[str]:
    info = await bus.js.stream_info("EVENTS", subjects_filter="gguf.>")
    return [subject for subject, count in (info.state.subjects or {}).items() for _ in range(count)]


async def documents(bus: Bus) -> list[str]:
    kv = await bus.js.key_value(GGUF.name)
    try:
        keys = await kv.keys()
        return sorted([json.loads((await kv.get(key)).value or b"{}")["path"] for key in keys])
    except (NoKeysError, KeyNotFoundError):
        return []


async def test_two_instances_tell_everything_once_and_one_takes_over(bus, fresh_nats_url, secret_key, root, writer):
    writer().model().write(root / "tiny.gguf")
    (root / "page.gguf").write_text("<!doctype html>")
    async with AsyncExitStack() as stack:
        first = AsyncExitStack()
        await first.enter_async_context(instance(fresh_nats_url, secret_key, root, "one"))
        await stack.enter_async_context(instance(fresh_nats_url, secret_key, root, "two"))

        async def both_told() -> bool:
            return sorted(await subjects(bus)) == ["gguf.inspected", "gguf.rejected"]

        await until(both_told)
        await asyncio.sleep(3)
        assert await both_told()
        assert await documents(bus) == ["tiny.gguf"]
        await first.aclose()
        writer(architecture="qwen2").model().write(root / "sub" / "second.gguf")

        async def second_known() -> bool:
            return len(await subjects(bus)) == 3 and await documents(bus) == ["sub/second.gguf", "tiny.gguf"]

        await until(second_known)
        (root / "tiny.gguf").unlink()

        async def first_gone() -> bool:
            return await documents(bus) == ["sub/second.gguf"]

        await until(first_gone)


async def test_a_wiped_store_is_filled_again(bus, fresh_nats_url, secret_key, root, writer):
    writer().model().write(root / "tiny.gguf")
    async with instance(fresh_nats_url, secret_key, root, "one"):

        async def known() -> bool:
            return await documents(bus) == ["tiny.gguf"]

        await until(known)
        kv = await bus.js.key_value(GGUF.name)
        for key in await kv.keys():
            await kv.delete(key)
        await until(known)


async def test_a_split_model_is_scanned_verified_and_merged_by_request(
    bus, fresh_nats_url, secret_key, root, smollm2_gguf
):
    split_gguf(smollm2_gguf, root / "smol", 3, prefix="smollm2")
    async with instance(fresh_nats_url, secret_key, root, "one", merge_folder="merged"):
        library = await scan(bus, refresh=True)
        (entry,) = library.entries
        assert (entry.path, entry.state) == ("smol/smollm2-00001-of-00003.gguf", EntryState.READY)
        assert entry.parts is not None
        assert (entry.parts.present, entry.parts.tensors) == (3, entry.parts.tensors_expected)

        request = VerifyRequestV1(path="smol")
        verified = await bus.request(RPC_GGUF_VERIFY, request, VerifyResultV1, timeout=30)
        assert verified.ok
        assert len({file.sha256 for file in verified.files}) == 3

        async def ask() -> MergeStartedV1:
            return await bus.request(RPC_GGUF_MERGE, MergeRequestV1(path="smol"), MergeStartedV1, timeout=30)

        first, second = await asyncio.gather(ask(), ask())
        assert first.job == second.job
        assert first.path == second.path
        assert first.path.startswith("merged/")

        async def done() -> bool:
            return (await ask()).state is MergeState.DONE

        await until(done)
        assert GgufFile(root / first.path).tensor_data() == GgufFile(smollm2_gguf).tensor_data()
        told = await subjects(bus)
        assert told.count("gguf.merged") == 1
        assert "gguf.merging" in told
        pages = [await scan(bus, refresh=True, offset=offset, limit=1) for offset in (0, 1, 2)]
        assert [page.total for page in pages] == [2, 2, 2]
        assert [len(page.entries) for page in pages] == [1, 1, 0]
        assert sum(entry.recommended for page in pages for entry in page.entries) == 1
        only = await scan(bus, path="smol")
        assert only.total == 1


async def test_refusals_of_library_requests_have_codes(bus, fresh_nats_url, secret_key, root, write_split):
    write_split(root, 3)[1].unlink()
    async with instance(fresh_nats_url, secret_key, root, "one"):
        await scan(bus)
        for subject, request, code in [
            (RPC_GGUF_MERGE, MergeRequestV1(path="big-00001-of-00003.gguf"), "split_incomplete"),
            (RPC_GGUF_MERGE, MergeRequestV1(path="../x"), "path_outside_models_root"),
            (RPC_GGUF_SCAN, ScanRequestV1(path="/etc"), "path_outside_models_root"),
            (RPC_GGUF_VERIFY, VerifyRequestV1(path="none.gguf"), "file_not_found"),
        ]:
            with pytest.raises(DomainError) as caught:
                await bus.request(subject, request, MergeStartedV1, timeout=10)
            assert caught.value.code == code
        answer = await bus.nc.request(RPC_GGUF_SCAN, b'{"limit": 100000}', timeout=10)
        assert b"invalid_request" in answer.data
