"""Image pulls by a real Docker engine from a small registry of ours."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from cortex_contracts.documents import PullProgress
from cortex_contracts.enums import EngineType
from cortex_kit.errors import DomainError
from cortex_orchestrator.adapters.docker_catalog import CatalogSettings, DockerCatalog
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.domain.engines import ENGINES

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_registry import SmallRegistry

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

ENGINE = ENGINES[EngineType.VLLM]
"""Any engine that is not asked for its options."""

MakeRegistry = Callable[..., SmallRegistry]


@pytest.fixture
def registry(docker_engine_required: None) -> Iterator[MakeRegistry]:
    made: list[SmallRegistry] = []

    def make(size: int = 1024 * 1024, pause_s: float = 0.0, refuse: int | None = None) -> SmallRegistry:
        made.append(SmallRegistry(size, pause_s, refuse))
        return made[-1]

    yield make
    client = docker.from_env(timeout=30)
    for one in made:
        with contextlib.suppress(ImageNotFound):
            client.images.remove(one.reference, force=True)
        one.close()
    client.close()


def catalog(default: str, *, offline: bool = False, pull_timeout_s: float = 60.0) -> DockerCatalog:
    defaults = dict.fromkeys(EngineType, default)
    return DockerCatalog(DockerEngine(), CatalogSettings(defaults, "images", offline, pull_timeout_s))


def ignore(_: str, __: PullProgress) -> None:
    pass


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.02)


async def test_a_pull_tells_its_progress_and_records_the_digest(registry: MakeRegistry) -> None:
    source = registry(size=3 * 1024 * 1024, pause_s=0.05)
    images = catalog(source.reference)
    told: list[PullProgress] = []
    program = await images.find(ENGINE, None, lambda _, progress: told.append(progress))
    assert program.reference == source.reference
    assert program.version == source.digest
    assert images.versions["vllm"] == f"{source.reference}@{source.digest}"
    assert told[-1].total_bytes is not None
    assert told[-1].total_bytes >= 3 * 1024 * 1024
    assert told[-1].current_bytes == told[-1].total_bytes
    assert 3 <= len(told) <= 12, "once a second, not once a piece"


async def test_all_who_wait_share_one_pull_and_one_who_leaves_does_not_end_it(registry: MakeRegistry) -> None:
    source = registry(size=2 * 1024 * 1024, pause_s=0.05)
    images = catalog(source.reference)
    heard: list[int] = []
    waiters = [
        asyncio.ensure_future(images.find(ENGINE, None, lambda _, __, it=number: heard.append(it)))
        for number in range(3)
    ]
    await until(lambda: source.layer_requests)
    waiters[0].cancel()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [getattr(result, "version", result) for result in results[1:]] == [source.digest] * 2
    assert source.layer_requests == 1
    assert {1, 2} <= set(heard)


async def test_a_pull_that_nobody_waits_for_any_more_is_given_up(registry: MakeRegistry) -> None:
    source = registry(size=8 * 1024 * 1024, pause_s=0.2)
    waiting = asyncio.ensure_future(catalog(source.reference).find(ENGINE, None, ignore))
    await until(lambda: source.layer_requests)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await asyncio.to_thread(source.broken_off.wait, 30)


async def test_a_pull_has_a_deadline(registry: MakeRegistry) -> None:
    source = registry(size=8 * 1024 * 1024, pause_s=0.5)
    with pytest.raises(DomainError) as caught:
        await catalog(source.reference, pull_timeout_s=1.0).find(ENGINE, None, ignore)
    assert caught.value.code == "image_pull_timeout"
    assert "CORTEX_ORCHESTRATOR_PULL_TIMEOUT_S" in caught.value.message


async def test_offline_never_asks_a_registry_and_says_what_to_do(registry: MakeRegistry) -> None:
    source = registry()
    with pytest.raises(DomainError) as caught:
        await catalog(source.reference, offline=True).find(ENGINE, None, ignore)
    assert caught.value.code == "image_missing"
    assert "docker load" in caught.value.message
    assert source.layer_requests == 0
    await catalog(source.reference).find(ENGINE, None, ignore)
    assert (await catalog(source.reference, offline=True).find(ENGINE, None, ignore)).version == source.digest


@pytest.mark.parametrize(
    ("status", "code"), [(404, "image_not_found"), (401, "registry_denied"), (429, "registry_limit")]
)
async def test_what_a_registry_refuses_has_a_stable_code(registry: MakeRegistry, status: int, code: str) -> None:
    source = registry(refuse=status)
    with pytest.raises(DomainError) as caught:
        await catalog(source.reference).find(ENGINE, None, ignore)
    assert caught.value.code == code
    assert source.reference in caught.value.message


async def test_a_registry_that_cannot_be_reached_is_told_to_everyone_who_waits(docker_engine_required: None) -> None:
    images = catalog("127.0.0.1:1/nowhere:none")
    results = await asyncio.gather(*(images.find(ENGINE, None, ignore) for _ in range(2)), return_exceptions=True)
    assert [getattr(result, "code", result) for result in results] == ["registry_unreachable"] * 2
    with pytest.raises(DomainError):
        await images.find(ENGINE, None, ignore)


async def test_an_image_that_cannot_be_asked_leaves_no_container(registry: MakeRegistry) -> None:
    source = registry()
    images = DockerCatalog(DockerEngine(), CatalogSettings(dict.fromkeys(EngineType, source.reference), "unasked"))
    with pytest.raises(DomainError):
        await images.find(ENGINES[EngineType.LLAMACPP], None, ignore)
    client = docker.from_env(timeout=30)
    assert client.containers.list(all=True, filters={"label": "cortex.probe=unasked"}) == []
    client.close()
