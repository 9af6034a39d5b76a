"""Asks the engine itself: `llama-fit-params` (or `llama fit-params`) reads the headers and prints what it would take."""

import asyncio
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cortex_contracts.engines import LlamaCppOptions
from cortex_contracts.estimates import CPU_DEVICE, DeviceV1, MemoryV1
from cortex_kit.errors import TransientError

MIB = 1 << 20
DEADLINE_S = 30.0
MAX_OUTPUT = 1 * MIB
_LINE = re.compile(r"^(?P<device>\S+)\s+(?P<model>\d+)\s+(?P<context>\d+)\s+(?P<compute>\d+)\s*$")
_HOST = "Host"


@dataclass(frozen=True, slots=True)
class FitParams:
    """The tool: its command, without the arguments."""

    command: tuple[str, ...]

    async def ask(self, file: Path, options: LlamaCppOptions, extra_args: Sequence[str] = ()) -> tuple[MemoryV1, ...]:
        """What the engine would take per device.

        Raises:
            TransientError: the tool failed, printed nothing of the kind, or took longer than its deadline.
        """
        arguments = (*self.command[1:], *fit_arguments(str(file), options), *extra_args)
        process = await asyncio.create_subprocess_exec(
            self.command[0],
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(DEADLINE_S):
                output, errors = await process.communicate()
        except TimeoutError as error:
            raise TransientError(f"fit-params did not answer within {DEADLINE_S:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        found = parse_fit_params(output[:MAX_OUTPUT].decode(errors="replace"))
        if process.returncode != 0 or not found:
            last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
            raise TransientError(f"fit-params failed: {last[0][:300]}")
        return found


def find_fit_params(configured: Path | None = None) -> FitParams | None:
    """The tool that is configured or on PATH; None when there is none."""
    if configured is not None:
        alone = configured.name != "llama"
        return FitParams((str(configured),) if alone else (str(configured), "fit-params"))
    if (alone := shutil.which("llama-fit-params")) is not None:
        return FitParams((alone,))
    if (whole := shutil.which("llama")) is not None:
        return FitParams((whole, "fit-params"))
    return None


def fit_arguments(file: str, options: LlamaCppOptions) -> list[str]:
    """The options that decide the memory, and the one that makes the tool print it."""
    words = ["-m", file, "-c", str(options.context_size), "-b", str(options.batch_size)]
    words += ["-fa", "on" if options.flash_attention else "off"]
    named = {
        "-ub": options.ubatch_size,
        "-np": options.parallel_slots,
        "-ctk": options.cache_type_k,
        "-ctv": options.cache_type_v,
        "-ngl": options.ngl,
        "-ts": options.tensor_split,
        "-sm": options.split_mode,
    }
    for name, value in named.items():
        words += [name, str(value)] if value is not None else []
    if options.kv_unified is not None:
        words.append("-kvu" if options.kv_unified else "-no-kvu")
    return [*words, "-fitp", "on"]


def parse_fit_params(text: str) -> tuple[MemoryV1, ...]:
    """Lines `DEVICE model context compute` in MiB, the host's too; what the host keeps in several places is summed."""
    sums: dict[str, list[int]] = {}
    for line in text.splitlines():
        match = _LINE.match(line.strip())
        if match is None:
            continue
        name = CPU_DEVICE if match["device"] == _HOST else match["device"]
        parts = sums.setdefault(name, [0, 0, 0])
        for index, part in enumerate(("model", "context", "compute")):
            parts[index] += int(match[part]) * MIB
    order = sorted(sums, key=lambda name: name != CPU_DEVICE)
    return tuple(
        MemoryV1(device=name, weights=sums[name][0], kv=sums[name][1], compute=sums[name][2], total=sum(sums[name]))
        for name in order
    )


def with_free(memories: Sequence[MemoryV1], devices: Sequence[DeviceV1], host_free: int | None) -> tuple[MemoryV1, ...]:
    """The same with what is free of each device, by name."""
    free: dict[str, int | None] = {CPU_DEVICE: host_free, **{device.name: device.memory_free for device in devices}}
    return tuple(
        memory.model_copy(
            update={
                "free": (room := free.get(memory.device)),
                "fits": None if room is None else memory.total <= room,
            }
        )
        for memory in memories
    )
