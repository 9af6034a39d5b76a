"""Questions of the calculator: which file, which settings, on which hardware."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

from cortex_console.domain.form.draft import Draft
from cortex_console.domain.form.fields import FormField
from cortex_console.domain.formatting import bytes_text
from cortex_console.domain.shapes import Row, rows, text, whole

GIB = 2**30
MOST_GPUS = 64
_SETTINGS = {
    "llamacpp": [
        "context_size",
        "parallel_slots",
        "ngl",
        "tensor_split",
        "split_mode",
        "cache_type_k",
        "cache_type_v",
        "flash_attention",
        "batch_size",
        "ubatch_size",
        "n_cpu_moe",
        "cache_ram_mib",
    ],
    "vllm": [
        "max_model_len",
        "max_num_seqs",
        "tp_size",
        "pipeline_parallel_size",
        "gpu_memory_utilization",
        "dtype",
        "kv_cache_dtype",
        "quantization",
        "cpu_offload_gb",
        "enforce_eager",
    ],
}


def settings_of(engine: str, fields: Iterable[FormField]) -> tuple[FormField, ...]:
    """What decides about memory, in order."""
    known = {field.name: field for field in fields}
    return tuple(known[name] for name in _SETTINGS.get(engine, ()) if name in known)


@dataclass(frozen=True, slots=True)
class Hardware:
    """A host, real or thought of. Memory in bytes."""

    name: str
    gpus: tuple[tuple[int, int], ...]
    """Free and total of each."""
    memory_free: int
    memory_total: int
    cores: int | None

    @classmethod
    def of(cls, node: Row) -> Self:
        """Read one host of `GET /admin/nodes`."""
        return cls(
            name=text(node.get("hostname")) or text(node.get("id")),
            gpus=tuple(
                (whole(gpu.get("memory_free")), whole(gpu.get("memory_total"))) for gpu in rows(node.get("gpus"))
            ),
            memory_free=whole(node.get("memory_available")),
            memory_total=whole(node.get("memory_total")),
            cores=whole(node.get("cpu_count")) or None,
        )

    @classmethod
    def thought(cls, gpus: int, gib_each: float, ram_gib: float, cores: int) -> Self:
        """One that people think of buying; all its memory is free."""
        each, ram = int(gib_each * GIB), int(ram_gib * GIB)
        return cls("Other hardware", ((each, each),) * max(0, min(gpus, MOST_GPUS)), ram, ram, cores or None)

    @property
    def summary(self) -> str:
        """What is free there."""
        gpus = f"{len(self.gpus)} GPU{'' if len(self.gpus) == 1 else 's'}" if self.gpus else "no GPU"
        free = f", {bytes_text(sum(free for free, _ in self.gpus))} free there" if self.gpus else ""
        return f"{gpus}{free}, {bytes_text(self.memory_free)} of {bytes_text(self.memory_total)} RAM free"

    def request(self) -> dict[str, Any]:
        """`devices` and `host` of an estimate."""
        devices = [
            {"name": f"GPU{index}", "memory_free": free, "memory_total": total}
            for index, (free, total) in enumerate(self.gpus)
        ]
        host = {"memory_free": self.memory_free, "memory_total": self.memory_total, "cpu_count": self.cores}
        return {"devices": devices, "host": host}


def estimate_request(path: str, draft: Draft, hardware: Hardware | None, task: str = "generate") -> dict[str, Any]:
    """For `POST /admin/gguf/estimate`; without hardware the installation's largest host is taken."""
    options = {name: value for name, value in draft.values.items() if value != draft.fields[name].default}
    request: dict[str, Any] = {"path": path, "engine_type": draft.engine, draft.engine: options, "task": task}
    return request | (hardware.request() if hardware is not None else {})


def address_of_new(path: str, draft: Draft) -> str:
    """The form of a new model with these settings."""
    told = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in draft.values.items()
        if value != draft.fields[name].default
    }
    return f"/models/new?{urlencode({'path': path, **told})}"


def patch_for(model: Row, draft: Draft) -> dict[str, Any]:
    """What a model would have to change to be like this."""
    return {
        name: None if value == draft.fields[name].default else value
        for name, value in draft.values.items()
        if name in model and model[name] != value
    }


def candidates(models: Sequence[Row], engine: str, path: str) -> list[Row]:
    """Models that the settings can be given to, those of the same file first."""
    fitting = [one for one in models if one.get("engine_type") == engine and not one.get("external")]
    return sorted(fitting, key=lambda one: (one.get("local_path") != path, text(one.get("name")).lower()))
