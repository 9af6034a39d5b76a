"""One suite for every EngineRuntime: the port's promises hold on the fake, on processes, in containers and in Swarm."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from cortex_kit.errors import DomainError
from cortex_kit.ids import uuid7
from cortex_orchestrator.adapters.docker_engine import DockerEngine
from cortex_orchestrator.adapters.docker_mapping import DockerPlace
from cortex_orchestrator.adapters.docker_runtime import DockerRuntime
from cortex_orchestrator.adapters.process_runtime import ProcessRuntime
from cortex_orchestrator.adapters.swarm_mapping import SwarmPlace
from cortex_orchestrator.adapters.swarm_runtime import SwarmRuntime
from cortex_orchestrator.domain.observed import Observed, Phase
from cortex_orchestrator.domain.spec import ContainerSpec, Program, StopPolicy
from cortex_orchestrator.ports import EngineRuntime

pytestmark = pytest.mark.timeout(90)


@dataclass
class Bench:
    name: str
    spec: Callable[..., ContainerSpec]
    again: Callable[[], EngineRuntime]
    real: bool

    def __post_init__(self) -> None:
        self.runtime = self.again()


@pytest.fixture(
    params=[
        "fake",
        pytest.param("process", marks=pytest.mark.integration),
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("swarm", marks=pytest.mark.docker),
    ]
)
async def bench(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_spec: Callable[..., ContainerSpec],
    python: str,
    process_environment: dict[str, str],
) -> AsyncIterator[Bench]:
    match request.param:
        case "fake":
            fake = request.getfixturevalue("fake_runtime")
            yield Bench("fake", make_spec, lambda: fake, False)
        case "process":
            bench = Bench(
                "process",
                lambda mode="serve", **changes: make_spec(mode, program=python, **changes),
                lambda: ProcessRuntime(tmp_path / "state", process_environment, watch_s=0.1, log_bytes=64 * 1024),
                True,
            )
            yield bench
            await _clean(bench)
        case "swarm":
            request.getfixturevalue("swarm_required")
            node = f"contract-{uuid7()[-8:]}"
            swarm = SwarmPlace("cortex-swarm-test", node, publish=True)
            bench = Bench(
                "swarm",
                lambda mode="serve", **changes: make_spec(mode, node=node, **changes),
                lambda: SwarmRuntime(DockerEngine(), swarm),
                True,
            )
            yield bench
            await _clean(bench)
        case _:
            request.getfixturevalue("docker_engine_required")
            node = f"contract-{uuid7()[-8:]}"
            place = DockerPlace("cortex-engines-test", True, node)
            bench = Bench(
                "docker",
                lambda mode="serve", **changes: make_spec(mode, node=node, **changes),
                lambda: DockerRuntime(DockerEngine(), place),
                True,
            )
            yield bench
            await _clean(bench)


async def _clean(bench: Bench) -> None:
    for seen in await bench.runtime.list_owned():
        await bench.runtime.remove(seen.replica_id)
    assert await bench.runtime.list_owned() == ()
    await bench.runtime.close()


async def _run(bench: Bench, mode: str = "serve", **changes: object) -> tuple[ContainerSpec, Observed]:
    spec = bench.spec(mode, **changes)
    await bench.runtime.create(spec, {"ENGINE_KEY": "sesame"})
    seen = await bench.runtime.start(spec.replica_id)
    if bench.real and mode in ("serve", "stubborn", "deaf"):
        await _answer(seen)
    return spec, seen


async def _answer(seen: Observed) -> str:
    assert seen.endpoint is not None
    async with httpx.AsyncClient() as client:
        for _ in range(200):
            try:
                return (await client.get(seen.endpoint, timeout=2)).text
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
    raise AssertionError("the engine does not answer")


async def _ended(bench: Bench, spec: ContainerSpec) -> Observed:
    for _ in range(300):
        seen = next(one for one in await bench.runtime.list_owned() if one.replica_id == spec.replica_id)
        if seen.phase is Phase.EXITED:
            return seen
        await asyncio.sleep(0.05)
    raise AssertionError("the engine does not end")


async def test_a_created_replica_is_listed_and_does_not_run(bench: Bench) -> None:
    spec = bench.spec()
    created = await bench.runtime.create(spec, {}, restarts=4)
    assert created.phase is Phase.CREATED
    (seen,) = await bench.runtime.list_owned()
    assert (seen.identity.model_id, seen.identity.ordinal) == (spec.model_id, 0)
    assert (seen.identity.spec_hash, seen.identity.restarts) == (spec.hash, 4)
    assert seen.container == spec.name
    assert seen.endpoint is None


async def test_a_started_replica_answers_at_its_endpoint_with_its_secret(bench: Bench) -> None:
    _, seen = await _run(bench)
    assert seen.phase is Phase.RUNNING
    assert seen.endpoint is not None
    if bench.real:
        assert await _answer(seen) == "sesame"


async def test_creating_twice_finds_the_first_and_another_spec_is_refused(bench: Bench) -> None:
    spec, seen = await _run(bench)
    assert (await bench.runtime.create(spec, {})).incarnation == seen.incarnation
    with pytest.raises(DomainError) as caught:
        await bench.runtime.create(replace(spec, restart_generation=1), {})
    assert caught.value.code == "name_taken"


async def test_a_new_adapter_finds_the_running_engine_and_can_stop_it(bench: Bench) -> None:
    spec, seen = await _run(bench)
    await bench.runtime.close()
    bench.runtime = bench.again()
    (adopted,) = await bench.runtime.list_owned()
    assert adopted == seen
    assert (await bench.runtime.stop(spec.replica_id, StopPolicy(20))).code == 0


async def test_the_exit_code_of_an_adopted_engine_is_known(bench: Bench) -> None:
    if not bench.real:
        pytest.skip("the fake has no processes")
    spec, _ = await _run(bench, "stubborn")
    bench.runtime = bench.again()
    assert (await bench.runtime.stop(spec.replica_id, StopPolicy(20, second_term_s=0.5))).code == 1


async def test_logs_are_the_last_lines_and_survive_the_end(bench: Bench) -> None:
    spec, _ = await _run(bench)
    lines = await bench.runtime.logs(spec.replica_id, 10)
    assert lines[0] == "first line"
    await bench.runtime.stop(spec.replica_id, StopPolicy(20))
    assert len(await bench.runtime.logs(spec.replica_id, 1)) == 1
    await bench.runtime.remove(spec.replica_id)
    assert await bench.runtime.logs(spec.replica_id, 10) == ()


async def _collect(bench: Bench, spec: ContainerSpec, tail: int, until: Callable[[list[str]], bool]) -> list[str]:
    lines: list[str] = []
    async with asyncio.timeout(30), aclosing(bench.runtime.follow(spec.replica_id, tail)) as batches:
        async for batch in batches:
            lines += batch
            if until(lines):
                break
    return lines


async def test_a_live_log_begins_with_history_and_ends_with_the_engine(bench: Bench) -> None:
    spec, _ = await _run(bench)
    following = asyncio.ensure_future(_collect(bench, spec, 10, lambda _: False))
    await asyncio.sleep(0.5 if bench.real else 0.05)
    assert not following.done()
    await bench.runtime.stop(spec.replica_id, StopPolicy(20))
    lines = await following
    assert lines[0] == "first line"
    if bench.real:
        assert lines[-1] == "sigterm 1"


async def test_a_live_log_has_no_gap_and_no_duplicate_between_history_and_what_comes(bench: Bench) -> None:
    if not bench.real:
        pytest.skip("the fake writes nothing by itself")
    spec, _ = await _run(bench, "ticking")
    await asyncio.sleep(0.3)
    lines = await _collect(bench, spec, 1000, lambda _: False)
    assert [line for line in lines if line.startswith("tick")] == [f"tick {number}" for number in range(40)]


async def test_a_live_log_without_history_begins_with_what_comes(bench: Bench) -> None:
    spec, _ = await _run(bench)
    following = asyncio.ensure_future(_collect(bench, spec, 0, lambda _: False))
    await asyncio.sleep(0.5 if bench.real else 0.05)
    await bench.runtime.stop(spec.replica_id, StopPolicy(20))
    assert "first line" not in await following


async def test_a_reader_of_a_live_log_may_leave_at_any_time(bench: Bench) -> None:
    spec, _ = await _run(bench)
    assert (await _collect(bench, spec, 5, bool))[0] == "first line"
    assert (await bench.runtime.stop(spec.replica_id, StopPolicy(20))).code == 0


async def test_nobody_has_a_live_log_to_read(bench: Bench) -> None:
    assert await _collect(bench, bench.spec(), 5, lambda _: False) == []


async def test_a_graceful_stop_ends_with_zero_and_is_idempotent(bench: Bench) -> None:
    spec, _ = await _run(bench)
    assert (await bench.runtime.stop(spec.replica_id, StopPolicy(20))).code == 0
    assert (await bench.runtime.stop(spec.replica_id, StopPolicy(20))).code == 0
    (seen,) = await bench.runtime.list_owned()
    assert seen.phase is Phase.EXITED
    assert seen.endpoint is None


async def test_a_second_sigterm_ends_an_engine_that_sat_out_the_first(bench: Bench) -> None:
    spec, _ = await _run(bench, "stubborn")
    assert (await bench.runtime.stop(spec.replica_id, StopPolicy(30, second_term_s=0.5))).code == 1


async def test_a_deaf_engine_is_killed_at_the_deadline(bench: Bench) -> None:
    spec, _ = await _run(bench, "deaf")
    started = asyncio.get_running_loop().time()
    assert (await bench.runtime.stop(spec.replica_id, StopPolicy(1.0, second_term_s=0.5))).code == 137
    assert asyncio.get_running_loop().time() - started < 10


async def test_a_crash_keeps_its_exit_code_and_its_output(bench: Bench) -> None:
    spec, _ = await _run(bench, "crash")
    seen = await _ended(bench, spec)
    assert seen.exit is not None
    assert (seen.exit.code, seen.exit.oom_killed) == (3, False)
    assert seen.started_at is not None
    assert seen.finished_at is not None
    assert seen.ran_for_s < 60
    if bench.real:
        assert "error: invalid argument: --nonsense" in await bench.runtime.logs(spec.replica_id, 5)


async def test_the_want_of_memory_is_told_from_other_kills(bench: Bench) -> None:
    if bench.name == "process":
        pytest.skip("a process has no memory limit of its own that a test could run into")
    spec, _ = await _run(bench, "oom", memory_bytes=48 * 1024 * 1024)
    seen = await _ended(bench, spec)
    assert seen.exit is not None
    assert seen.exit.oom_killed


async def test_an_end_gives_a_hint(bench: Bench) -> None:
    hints = bench.runtime.watch()
    waiting = asyncio.ensure_future(anext(hints))
    await asyncio.sleep(0.5 if bench.real else 0)
    spec, _ = await _run(bench, "crash")
    async with asyncio.timeout(20):
        hint = await waiting
        while hint != spec.replica_id:
            hint = await anext(hints)
    await hints.aclose()  # type: ignore[attr-defined]


async def test_removing_is_final_kills_what_runs_and_may_be_repeated(bench: Bench) -> None:
    spec, seen = await _run(bench)
    await bench.runtime.remove(spec.replica_id)
    assert await bench.runtime.list_owned() == ()
    await bench.runtime.remove(spec.replica_id)
    if bench.real:
        assert seen.endpoint is not None
        with pytest.raises(httpx.HTTPError):
            async with httpx.AsyncClient() as client:
                await client.get(seen.endpoint, timeout=1)


async def test_starting_what_was_never_created_is_refused(bench: Bench) -> None:
    with pytest.raises(DomainError) as caught:
        await bench.runtime.start(bench.spec().replica_id)
    assert caught.value.code == "not_created"


async def test_a_program_that_is_not_there_leaves_nothing_behind(bench: Bench) -> None:
    if not bench.real:
        pytest.skip("the fake runs nothing")
    program = "/nowhere/engine" if bench.name == "process" else "cortex/no-such-image:none"
    spec = replace(bench.spec(), program=Program(program))

    async def launch() -> None:
        await bench.runtime.create(spec, {})
        await bench.runtime.start(spec.replica_id)

    with pytest.raises(DomainError) as caught:
        await launch()
    assert caught.value.code in ("engine_start_failed", "image_missing")
    assert await bench.runtime.list_owned() == ()
