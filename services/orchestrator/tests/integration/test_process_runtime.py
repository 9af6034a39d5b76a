"""What only processes can show: the shim, its log bound, identities; and the flag builder against a real llama-server."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.engines import LlamaCppOptions, LoraAdapter
from cortex_contracts.enums import EngineType, Task
from cortex_kit.errors import DomainError
from cortex_orchestrator.adapters import shim
from cortex_orchestrator.adapters.process_catalog import ProcessCatalog
from cortex_orchestrator.adapters.process_runtime import ProcessRuntime
from cortex_orchestrator.adapters.replica_folder import Running
from cortex_orchestrator.domain.engines import ENGINES, BuildRequest
from cortex_orchestrator.domain.observed import Exit, Phase
from cortex_orchestrator.domain.spec import HOST, PORT, ContainerSpec, StopPolicy

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

LLAMA = ENGINES[EngineType.LLAMACPP]


@pytest.fixture
async def runtime(tmp_path: Path, process_environment: dict[str, str]) -> AsyncIterator[ProcessRuntime]:
    made = ProcessRuntime(tmp_path / "state", process_environment | {"CORTEX_SECRET_KEY": "x"}, log_bytes=64 * 1024)
    yield made
    for seen in await made.list_owned():
        await made.remove(seen.replica_id)


@pytest.fixture
def launch(
    runtime: ProcessRuntime, make_spec: Callable[..., ContainerSpec], python: str
) -> Callable[[str], "asyncio.Future[ContainerSpec]"]:
    async def go(mode: str) -> ContainerSpec:
        spec = make_spec(mode, program=python)
        await runtime.create(spec, {"ENGINE_KEY": "k"})
        await runtime.start(spec.replica_id)
        return spec

    return go  # type: ignore[return-value]


def record(tmp_path: Path, spec: ContainerSpec) -> Running:
    from cortex_orchestrator.adapters.replica_folder import ReplicaFolder  # noqa: PLC0415 - next to its use

    running = ReplicaFolder(tmp_path / "state" / "engines" / spec.replica_id).running()
    assert running is not None
    return running


async def test_the_engine_dies_with_its_shim_and_the_loss_is_seen(
    runtime: ProcessRuntime, launch: Callable[..., object], tmp_path: Path
) -> None:
    spec = await launch("serve")  # type: ignore[misc]
    running = record(tmp_path, spec)
    os.kill(running.pid, signal.SIGKILL)
    for _ in range(100):
        if shim.process_identity(running.engine_pid) is None:
            break
        await asyncio.sleep(0.05)
    assert shim.process_identity(running.engine_pid) is None
    (seen,) = await runtime.list_owned()
    assert (seen.phase, seen.exit) == (Phase.EXITED, Exit(None))
    assert (await runtime.stop(spec.replica_id, StopPolicy(1))).code is None


async def test_the_output_of_an_engine_is_bounded_and_its_end_is_kept(
    runtime: ProcessRuntime, launch: Callable[..., object], tmp_path: Path
) -> None:
    spec = await launch("chatty")  # type: ignore[misc]
    folder = tmp_path / "state" / "engines" / spec.replica_id
    for _ in range(200):
        lines = await runtime.logs(spec.replica_id, 5)
        if lines and lines[-1].startswith("line 19999"):
            break
        await asyncio.sleep(0.05)
    assert lines[-1].startswith("line 19999")
    assert sum(path.stat().st_size for path in folder.glob("engine.log*")) <= 64 * 1024 + 4096
    assert len(await runtime.logs(spec.replica_id, 300)) == 300


async def test_secrets_and_our_own_environment_stay_out_of_files_and_engine(
    runtime: ProcessRuntime, launch: Callable[..., object], tmp_path: Path
) -> None:
    spec = await launch("serve")  # type: ignore[misc]
    folder = tmp_path / "state" / "engines" / spec.replica_id
    assert folder.stat().st_mode & 0o077 == 0
    assert not any('"k"' in path.read_text(errors="replace") for path in folder.iterdir())
    environment = psutil.Process(record(tmp_path, spec).engine_pid).environ()
    assert environment["ENGINE_KEY"] == "k"
    assert environment["PLAIN"] == "value"
    assert "CORTEX_SECRET_KEY" not in environment


async def test_grandchildren_do_not_outlive_the_engine(
    runtime: ProcessRuntime, make_spec: Callable[..., ContainerSpec], python: str
) -> None:
    spec = make_spec("serve", program=python)
    script = "import subprocess, sys; child = subprocess.Popen(['sleep', '300']); print(child.pid, flush=True)"
    command = type(spec.command)(("x",), "ENGINE_KEY", entrypoint=("python3", "-I", "-c", script))
    spec = type(spec)(spec.model_id, 0, spec.engine_type, spec.node, spec.program, command)
    await runtime.create(spec, {})
    await runtime.start(spec.replica_id)
    for _ in range(100):
        (seen,) = await runtime.list_owned()
        if seen.phase is Phase.EXITED:
            break
        await asyncio.sleep(0.05)
    (pid,) = await runtime.logs(spec.replica_id, 1)
    assert shim.process_identity(int(pid)) is None


def test_a_pid_that_was_given_away_is_never_signalled() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        stale = Running(other.pid, "another-boot:1", other.pid, "another-boot:1", datetime.now(UTC))
        assert not stale.alive
        assert not stale.signal(signal.SIGKILL)
        stale.destroy()
        with contextlib.suppress(subprocess.TimeoutExpired):
            other.wait(timeout=0.2)
        assert other.poll() is None
        other.kill()


async def test_the_wheel_the_setting_and_path_are_found_in_their_order(
    tmp_path: Path, process_environment: dict[str, str], llama_server_binary: Path
) -> None:
    empty = process_environment | {"PATH": str(tmp_path)}
    found = await ProcessCatalog({}, empty).find(LLAMA, None, lambda *_: None)
    assert Path(found.reference).name == "llama-server"
    assert {"--ctx-size", "--load-mode", "--alias", "--metrics"} <= found.capabilities.flags
    assert "--draft-max" not in found.capabilities.flags

    (tmp_path / "llama-server").symlink_to(llama_server_binary)
    on_path = await ProcessCatalog({}, empty).find(LLAMA, None, lambda *_: None)
    assert on_path.reference == str(tmp_path / "llama-server")
    configured = ProcessCatalog({EngineType.LLAMACPP: llama_server_binary}, empty)
    assert (await configured.find(LLAMA, None, lambda *_: None)).reference == str(llama_server_binary)

    for settings in ({EngineType.LLAMACPP: tmp_path / "nothing"}, {EngineType.VLLM: None}):
        engine = ENGINES[next(iter(settings))]
        with pytest.raises(DomainError) as caught:
            await ProcessCatalog(settings, empty).find(engine, None, lambda *_: None)
        assert caught.value.code == "engine_missing"
    with pytest.raises(DomainError) as caught:
        await ProcessCatalog({EngineType.LLAMACPP: Path("/bin/true")}, empty).find(LLAMA, None, lambda *_: None)
    assert caught.value.code == "engine_broken"


EVERYTHING = LlamaCppOptions(
    ngl=0,
    tensor_split="1",
    batch_size=256,
    ubatch_size=128,
    threads=1,
    context_size=512,
    rope_freq_base=10000.0,
    rope_freq_scale=1.0,
    mlock=True,
    no_mmap=True,
    numa_policy="distribute",
    split_mode="layer",
    parallel_slots=1,
    kv_unified=True,
    cache_type_k="q8_0",
    cache_type_v="q8_0",
    cache_ram_mib=0,
    check_tensors=True,
    skip_warmup=True,
    jinja_enabled=True,
    chat_template="chatml",
    draft_model_path="draft.gguf",
    draft_n=4,
    draft_p_min=0.5,
    lora_adapters=(LoraAdapter(path="lora.gguf", scale=0.5),),
    pooling="mean",
    verbose_logging=True,
)


@pytest.mark.parametrize("task", list(Task))
async def test_a_real_llama_server_takes_every_option_we_can_write(
    task: Task, tmp_path: Path, process_environment: dict[str, str], llama_server_binary: Path
) -> None:
    catalog = ProcessCatalog({EngineType.LLAMACPP: llama_server_binary}, process_environment)
    program = await catalog.find(LLAMA, None, lambda *_: None)
    model = ModelDocumentV1(
        id=ModelId("m"),
        name="m",
        served_model_name="m",
        engine_type=EngineType.LLAMACPP,
        local_path="not-there.gguf",
        llamacpp=EVERYTHING,
        task=task,
        aggregateversion=1,
    )
    argv = LLAMA.build(BuildRequest(model, program, str(tmp_path))).argv
    assert {word for word in argv if word.startswith("--")} <= program.capabilities.flags
    words = [{HOST: "127.0.0.1", PORT: "0"}.get(word, word) for word in argv]
    done = await asyncio.to_thread(
        subprocess.run,
        [str(llama_server_binary), *words],
        env=process_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "invalid argument" not in done.stdout
    assert "not-there.gguf" in done.stdout
