"""`cortex gguf estimate` and `cortex gguf recommend`: memory of a model before it is started. Needs no running Cortex."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from pydantic import ValidationError
from rich.text import Text

from cortex_cli.commands.options import JsonOption
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import console, print_json, size, table
from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_contracts.enums import EngineType
from cortex_contracts.estimates import (
    DeviceV1,
    EstimateRequestV1,
    EstimateResultV1,
    HostV1,
    MemoryV1,
    RecommendRequestV1,
)
from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.estimate.estimator import Estimator

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?)i?B?", re.IGNORECASE)
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_PARTS = (("weights", "blue"), ("kv", "green"), ("compute", "yellow"), ("output", "cyan"), ("other", "magenta"))
_BAR = 60

PathArgument = Annotated[Path, typer.Argument(help="GGUF file, part 1 of a split set, or a folder with a model.")]
DeviceOption = Annotated[
    list[str] | None, typer.Option("--device", help="NAME=24GiB (free memory) of each GPU, in order. Repeat it.")
]
HostOption = Annotated[str | None, typer.Option("--host-memory", help="Free memory of the host, e.g. 64GiB.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `cortex gguf`."""
    app.command(
        epilog="Examples: `cortex gguf estimate model.gguf --ctx 32768 --ngl 99 --device GPU0=24GiB` · "
        "`cortex gguf estimate model.gguf --ctk q8_0 --ctv q8_0 --json`"
    )(estimate)
    app.command(epilog="Example: `cortex gguf recommend model.gguf --device GPU0=24GiB --device GPU1=24GiB`")(recommend)


def estimate(
    path: PathArgument,
    ctx: Annotated[int, typer.Option("--ctx", min=0, help="Tokens over all slots; 0 takes the model's own.")] = 8192,
    ngl: Annotated[int | None, typer.Option("--ngl", min=0, help="Layers on the devices; default all.")] = None,
    tensor_split: Annotated[str | None, typer.Option("--tensor-split", help="Proportions, e.g. 3,1.")] = None,
    parallel: Annotated[int, typer.Option("--parallel", min=1, help="Slots.")] = 1,
    unified: Annotated[bool, typer.Option("--unified", help="Slots share one cache.")] = False,
    ubatch: Annotated[int, typer.Option("--ubatch", min=1, help="Tokens computed at once.")] = 512,
    ctk: Annotated[str | None, typer.Option("--ctk", help="Type of cached keys, e.g. q8_0.")] = None,
    ctv: Annotated[str | None, typer.Option("--ctv", help="Type of cached values.")] = None,
    no_fa: Annotated[bool, typer.Option("--no-fa", help="Without flash attention.")] = False,
    cache_ram: Annotated[int | None, typer.Option("--cache-ram", help="Prompt cache on the host, MiB.")] = None,
    device: DeviceOption = None,
    host_memory: HostOption = None,
    vllm: Annotated[bool, typer.Option("--vllm", help="For vLLM (folder with config.json and safetensors).")] = False,
    tp: Annotated[int, typer.Option("--tp", min=1, help="GPUs that share every layer (vLLM).")] = 1,
    utilization: Annotated[float, typer.Option("--gpu-memory-utilization", help="Share of a GPU (vLLM).")] = 0.9,
    extra: Annotated[
        list[str] | None, typer.Option("--arg", help="A further engine argument, e.g. --arg=-nkvo.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate the memory a model takes, per device, and what would fit."""
    try:
        request = EstimateRequestV1(
            path=_relative(path),
            engine_type=EngineType.VLLM if vllm else EngineType.LLAMACPP,
            llamacpp=LlamaCppOptions.model_validate(
                {
                    "context_size": ctx,
                    "ngl": ngl,
                    "tensor_split": tensor_split,
                    "parallel_slots": parallel,
                    "kv_unified": unified or None,
                    "ubatch_size": ubatch,
                    "batch_size": max(ubatch, 512),
                    "cache_type_k": ctk,
                    "cache_type_v": ctv,
                    "flash_attention": not no_fa,
                    "cache_ram_mib": cache_ram,
                }
            ),
            vllm=VllmOptions(tp_size=tp, gpu_memory_utilization=utilization, max_model_len=ctx or None)
            if vllm
            else None,
            extra_args=tuple(extra or ()),
            devices=parse_devices(device or []),
            host=_host(host_memory),
        )
        result = Estimator(Path("/")).estimate(request)
    except ValidationError as error:
        raise CliError(_wrong_usage(error), exit_code=ExitCode.USAGE) from error
    except GgufError as error:
        raise CliError(error.message, code=error.code) from error
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _show(result)


def recommend(
    path: PathArgument,
    ctx: Annotated[int | None, typer.Option("--ctx", min=1, help="Tokens per slot to aim for.")] = None,
    parallel: Annotated[int, typer.Option("--parallel", min=1, help="Slots.")] = 1,
    device: DeviceOption = None,
    host_memory: HostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend how to serve a model on this or another host, with the reasons."""
    request = RecommendRequestV1(
        path=_relative(path),
        devices=parse_devices(device or []),
        host=_host(host_memory),
        context_size=ctx,
        parallel_slots=parallel,
    )
    try:
        result = Estimator(Path("/")).recommend(request)
    except GgufError as error:
        raise CliError(error.message, code=error.code) from error
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    rows = [(item.setting, item.value, item.reason) for item in result.settings]
    console().print(table(("setting", "value", "reason"), rows))
    for warning in result.warnings:
        console().print(Text(f"! {warning}", style="yellow"))
    if result.estimate is not None:
        console().print()
        _show(result.estimate)


def parse_devices(texts: Sequence[str]) -> tuple[DeviceV1, ...]:
    """`NAME=24GiB` pairs, or sizes alone.

    Raises:
        CliError: not a size.
    """
    devices: list[DeviceV1] = []
    for index, text in enumerate(texts):
        name, _, size = text.rpartition("=")
        name = name or f"GPU{index}"
        devices.append(DeviceV1(name=name, memory_free=parse_size(size), driver_context=not name.startswith("RPC")))
    return tuple(devices)


def parse_size(text: str) -> int:
    """Bytes from `24GiB`, `24G`, `512 MiB` or a plain number; units are powers of 1024.

    Raises:
        CliError: not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise CliError(f"{text!r} is no size; write it like 24GiB.", exit_code=ExitCode.USAGE)
    return int(float(match["number"]) * 1024 ** _UNITS[match["unit"].upper()])


def _relative(path: Path) -> str:
    return os.path.relpath(os.path.abspath(path), "/")


def _host(given: str | None) -> HostV1:
    memory = psutil.virtual_memory()
    free = memory.available if given is None else parse_size(given)
    return HostV1(memory_total=memory.total, memory_free=free, cpu_count=os.cpu_count())


def _wrong_usage(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"


def _show(result: EstimateResultV1) -> None:
    out = console()
    rows = [_row(memory) for memory in result.devices]
    rows.append(
        (
            "total",
            "",
            *(size(sum(_part(m, part) for m in result.devices)) for part, _ in _PARTS),
            size(result.total),
            "",
            "",
        )
    )
    out.print(table(("device", "layers", *(part for part, _ in _PARTS), "total", "free", "fits"), rows))
    widest = max((max(memory.total, memory.free or 0) for memory in result.devices), default=0)
    for memory in result.devices:
        out.print(_bar(memory, widest))
    out.print(Text("  ").join(Text(f"█ {part}", style=colour) for part, colour in _PARTS))
    for name, value in _facts(result):
        out.print(Text(f"{name}: {value}"))
    for proposal in result.proposals:
        out.print(Text(f"proposal: {proposal.setting} = {proposal.value} ({proposal.reason})", style="cyan"))
    for warning in result.warnings:
        out.print(Text(f"! {warning}", style="yellow"))
    if not result.known:
        out.print(Text(f"! unknown: {result.reason}. The total is a lower bound.", style="red"))


def _part(memory: MemoryV1, part: str) -> int:
    """One part of a device's memory by its column."""
    parts: dict[str, int] = {
        "weights": memory.weights,
        "kv": memory.kv,
        "compute": memory.compute,
        "output": memory.output,
        "other": memory.other,
    }
    return parts[part]


def _row(memory: MemoryV1) -> tuple[object, ...]:
    fits = {True: "yes", False: "no", None: "?"}[memory.fits]
    parts = (size(_part(memory, part)) for part, _ in _PARTS)
    return (memory.device, memory.layers, *parts, size(memory.total), size(memory.free), fits)


def _bar(memory: MemoryV1, widest: int) -> Text:
    bar = Text(f"{memory.device[:12]:<12} ")
    if not widest:
        return bar
    drawn = 0
    for part, colour in _PARTS:
        cells = round(_part(memory, part) / widest * _BAR)
        bar.append("█" * cells, style=colour)
        drawn += cells
    room = round((memory.free or 0) / widest * _BAR)
    return bar.append("·" * max(0, room - drawn), style="dim")


def _facts(result: EstimateResultV1) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [
        ("context", f"{result.context_size} tokens, {result.context_per_slot} per slot"),
        ("cache per token", size(result.kv_bytes_per_token)),
        ("source", result.source),
    ]
    if result.largest_context is not None:
        found.insert(1, ("largest context that fits", f"{result.largest_context} tokens"))
    if result.max_concurrency is not None:
        found.append(("requests of full length at once", f"{result.max_concurrency:.1f}"))
    return found
