"""Memory estimates against a real llama-server: `.venv/bin/python tests/bench/gguf_estimates.py [--markdown]`.

Every configuration is estimated, then the engine is started with the same options and asked. About two minutes.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from cortex_contracts.engines import LlamaCppOptions
from cortex_contracts.estimates import DeviceV1
from cortex_gguf_inspector.estimate.architecture import Facts, facts_of
from cortex_gguf_inspector.estimate.llamacpp import Estimate, estimate, setup
from cortex_gguf_inspector.inspect import read_set
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.paths import ModelsRoot
from cortex_testing import binaries
from cortex_testing.gguf import fixtures
from cortex_testing.llama_memory import MIB, Measured, measure, rpc_devices

GIB = 1 << 30


@dataclass(frozen=True)
class Case:
    model: str
    options: dict[str, object]
    extra: tuple[str, ...] = ()
    devices: int = 0
    group: str = "dense"


@dataclass
class Row:
    case: Case
    estimated: Estimate
    measured: Measured
    kv_exact: bool = False
    weights_off: float = 0.0
    compute: list[tuple[str, float, float]] = field(default_factory=list)

    @property
    def worst(self) -> float:
        """Largest relative error of a compute buffer, positive when estimated too high."""
        errors = [(ours - theirs) / theirs for _, ours, theirs in self.compute if theirs]
        return max(errors, key=abs, default=0.0)

    @property
    def met(self) -> bool:
        allowed = 0.10 if self.case.group == "dense" else 0.15
        return self.kv_exact and abs(self.weights_off) <= 0.01 and -0.05 <= self.worst <= allowed


def smollm2() -> Iterator[Case]:
    base: dict[str, object] = {"parallel_slots": 1}
    for context in (2048, 8192):
        for flash in (True, False):
            yield Case("SmolLM2", {**base, "context_size": context, "flash_attention": flash})
    yield Case("SmolLM2", {**base, "context_size": 0})
    yield Case("SmolLM2", {**base, "context_size": 1000})
    for keys, values in (("q8_0", "q8_0"), ("q4_0", "q4_0"), ("q5_1", "iq4_nl"), ("f32", "f32"), ("bf16", "bf16")):
        yield Case("SmolLM2", {**base, "context_size": 4096, "cache_type_k": keys, "cache_type_v": values})
    yield Case("SmolLM2", {**base, "context_size": 8192, "flash_attention": False, "cache_type_k": "q8_0"})
    yield Case("SmolLM2", {"context_size": 8192, "parallel_slots": 4})
    yield Case("SmolLM2", {"context_size": 8192, "parallel_slots": 4, "kv_unified": True})
    yield Case("SmolLM2", {"context_size": 5000, "parallel_slots": 3})
    yield Case("SmolLM2", {"context_size": 8192, "parallel_slots": 4, "flash_attention": False})
    yield Case("SmolLM2", {"context_size": 4096})
    for ubatch in (64, 128, 1024, 2048):
        yield Case("SmolLM2", {**base, "context_size": 8192, "ubatch_size": ubatch, "batch_size": 2048})
    yield Case("SmolLM2", {**base, "context_size": 8192, "batch_size": 256})


def smollm2_devices() -> Iterator[Case]:
    base: dict[str, object] = {"parallel_slots": 1, "context_size": 4096}
    for ngl, split in ((10, "3,1"), (10, "1,1"), (31, "1,1"), (31, "1,3"), (30, "1,1"), (1, "1,1"), (20, "2,1")):
        yield Case("SmolLM2", {**base, "ngl": ngl, "tensor_split": split}, devices=2)
    yield Case("SmolLM2", {**base, "ngl": 31}, devices=1)
    yield Case("SmolLM2", {**base, "ngl": 31, "tensor_split": "1,1", "flash_attention": False}, devices=2)
    yield Case("SmolLM2", {**base, "ngl": 31, "tensor_split": "1,1"}, ("-nkvo",), devices=2)
    yield Case("SmolLM2", {**base, "ngl": 31, "split_mode": "none"}, devices=2)


def others() -> Iterator[Case]:
    one: dict[str, object] = {"parallel_slots": 1, "context_size": 8192}
    for model in ("gpt-oss-20b", "gpt-oss-120b"):
        yield Case(model, one, group="other")
        yield Case(model, {**one, "flash_attention": False}, group="other")
    big = "gpt-oss-120b"
    yield Case(big, {**one, "context_size": 131072}, group="other")
    yield Case(big, {**one, "parallel_slots": 4}, group="other")
    yield Case(big, {**one, "parallel_slots": 4, "kv_unified": True}, group="other")
    yield Case(big, {**one, "ubatch_size": 2048, "batch_size": 2048}, group="other")
    yield Case(big, {**one, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}, group="other")
    yield Case(big, one, ("--swa-full",), group="other")
    yield Case(big, {**one, "ngl": 37, "tensor_split": "1,1"}, devices=2, group="other")
    yield Case(big, {**one, "ngl": 20, "tensor_split": "2,1"}, devices=2, group="other")
    yield Case(big, {**one, "ngl": 37}, ("-ncmoe", "20"), devices=1, group="other")
    yield Case("gemma3", one, group="other")
    yield Case("gemma3", {**one, "flash_attention": False}, group="other")
    yield Case("gemma3", {**one, "parallel_slots": 4, "context_size": 32768}, group="other")
    yield Case("gemma3", {**one, "ngl": 27, "tensor_split": "1,1"}, devices=2, group="other")
    for model, extra in (("deepseek2", ("-nr",)), ("jamba", ())):  # 10434 re-lays attn_k_b for AMX and then aborts
        yield Case(model, one, extra, group="other")
        yield Case(model, {**one, "flash_attention": False}, extra, group="other")
        yield Case(model, {**one, "parallel_slots": 4, "context_size": 32768}, extra, group="other")
    for model in ("SmolLM2", "gpt-oss-20b"):
        yield Case(model, one, ("-nr",), group="dense" if model == "SmolLM2" else "other")
    yield Case("deepseek2", {**one, "ngl": 28, "tensor_split": "1,1"}, ("-nr",), devices=2, group="other")


def arguments(options: LlamaCppOptions, extra: Sequence[str]) -> list[str]:
    """As the orchestrator passes them."""
    words = ["-c", str(options.context_size), "-b", str(options.batch_size), "-cram", "0"]
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
    return [*words, *extra]


class Bench:
    def __init__(self, folder: Path, binary: Path, build: int) -> None:
        self._folder = folder
        self._binary = binary
        self._build = build
        self._facts: dict[str, tuple[Path, Facts]] = {}

    def model(self, name: str) -> tuple[Path, Facts]:
        if name not in self._facts:
            path = self._file(name)
            headers = read_set(ModelsRoot(Path("/")), PurePosixPath(str(path.resolve())[1:]), Limits())
            self._facts[name] = (path, facts_of(headers))
        return self._facts[name]

    def _file(self, name: str) -> Path:
        if name == "SmolLM2":
            return binaries.demo_gguf()
        build: dict[str, Callable[[], object]] = {
            "gpt-oss-20b": lambda: fixtures.gpt_oss_20b(vocabulary=201_088),
            "gpt-oss-120b": lambda: fixtures.gpt_oss_120b(vocabulary=201_088),
            "gemma3": lambda: fixtures.gemma3(vocabulary=262_144),
            "deepseek2": lambda: fixtures.deepseek2(vocabulary=102_400),
            "jamba": lambda: fixtures.jamba(vocabulary=65_536),
        }
        return build[name]().write(self._folder / f"{name}.gguf")  # type: ignore[attr-defined]

    def run(self, case: Case, addresses: Sequence[str]) -> Row:
        path, facts = self.model(case.model)
        options = LlamaCppOptions.model_validate({**case.options, "cache_ram_mib": 0})
        rpc = ("--rpc", ",".join(addresses[: case.devices])) if case.devices else ()
        measured = measure(self._binary, path, [*arguments(options, case.extra), *rpc], load=case.model == "SmolLM2")
        devices = [DeviceV1(name=f"RPC{i}", memory_free=64 * GIB, driver_context=False) for i in range(case.devices)]
        estimated = estimate(replace(setup(facts, options, case.extra, devices), build=self._build))
        return judge(Row(case, estimated, measured), addresses)


def judge(row: Row, addresses: Sequence[str]) -> Row:
    estimated, measured = row.estimated, row.measured
    kv = sum(memory.kv for memory in estimated.devices) / MIB
    row.kv_exact = abs(kv - measured.cache_total) <= 0.0051 * len(measured.caches) + 1e-9
    compute = measured.of("compute")
    caches = measured.of("KV")
    for index, memory in enumerate(estimated.devices):
        name = "CPU" if index == 0 else next((n for n in compute if n.endswith(f"[{addresses[index - 1]}]")), "")
        row.compute.append((memory.device, memory.compute / MIB, compute.get(name, 0.0)))
        if row.case.model == "SmolLM2":
            row.kv_exact &= abs(memory.kv / MIB - caches.get(name, 0.0)) <= 0.0051
    theirs: dict[str, int] = {}
    for device, size in measured.weights.items():
        key = f"RPC{device[3]}" if device.startswith("RPC") else "CPU"
        theirs[key] = theirs.get(key, 0) + size
    rounding = {key: sum(1 for d in measured.weights if (d.startswith(key) or key == "CPU")) for key in theirs}
    for memory in estimated.devices:
        ours, engine = memory.weights / MIB, theirs.get(memory.device, 0)
        if engine <= ours <= engine + rounding.get(memory.device, 1):
            continue  # the engine's table cuts each line to whole MiB
        off = (ours - engine) / max(engine, 1)
        row.weights_off = max(row.weights_off, off, key=abs)
    return row


def shown(row: Row) -> list[str]:
    options = dict(row.case.options)
    words = [f"{name}={value}" for name, value in options.items() if (name, value) != ("parallel_slots", 1)]
    words += [" ".join(row.case.extra)] if row.case.extra else []
    words += [f"{row.case.devices} devices"] if row.case.devices else []
    kv = sum(memory.kv for memory in row.estimated.devices) / MIB
    ours = " / ".join(f"{ours:.2f}" for _, ours, _ in row.compute)
    theirs = " / ".join(f"{theirs:.2f}" for _, _, theirs in row.compute)
    weights = sum(memory.weights for memory in row.estimated.devices) / MIB
    return [
        row.case.model,
        ", ".join(words),
        f"{weights:.0f} ({row.weights_off:+.1%})",
        f"{kv:.2f} / {row.measured.cache_total:.2f}",
        ours,
        theirs,
        f"{row.worst:+.1%}",
        "yes" if row.met else "NO",
    ]


HEADINGS = ["model", "options", "weights MiB (off)", "KV ours / engine", "compute ours", "compute engine", "off", "met"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--server", type=Path, default=None, help="another llama-server")
    parser.add_argument("--build", type=int, default=10_434, help="build number of the server")
    parser.add_argument("--no-devices", action="store_true", help="for a build without RPC")
    arguments_ = parser.parse_args()
    binary = arguments_.server or binaries.llama_server()
    cases = [case for case in (*smollm2(), *smollm2_devices(), *others()) if arguments_.only in case.model]
    cases = [case for case in cases if not (case.devices and arguments_.no_devices)]
    print("| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS))
    started, missed = time.monotonic(), 0
    rpc_folder = binaries.llama_server().parent
    with tempfile.TemporaryDirectory() as folder, rpc_devices(rpc_folder, 2) as addresses:
        bench = Bench(Path(folder), binary, arguments_.build)
        for case in cases:
            row = bench.run(case, addresses)
            missed += not row.met
            print("| " + " | ".join(shown(row)) + " |", flush=True)
    print(f"\n{len(cases)} configurations, {missed} missed, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
