"""Hosts, their devices, what is promised of them, and how they did lately."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cortex_console.domain.formatting import bytes_text
from cortex_console.domain.shapes import Row, number, row, rows, text, texts

Points = list[list[object]]
_GRAVITY = {"failed": 0, "warning": 1, "ok": 2}


@dataclass(frozen=True, slots=True)
class Device:
    """The memory of a host, or a GPU. Bytes."""

    name: str
    total: float
    free: float
    promised: float
    utilization: float | None
    models: tuple[str, ...] = ()

    @property
    def used_share(self) -> float:
        """Of its memory, by whomever."""
        return 1 - self.free / self.total if self.total else 0.0

    @property
    def promised_share(self) -> float:
        """Of its memory, by Cortex."""
        return self.promised / self.total if self.total else 0.0

    @property
    def words(self) -> str:
        """`4.2 of 23.5 GiB used, 1.3 GiB promised to models`."""
        used = bytes_text(self.total - self.free)
        return f"{used} of {bytes_text(self.total)} used, {bytes_text(self.promised)} promised to models"


@dataclass(frozen=True, slots=True)
class Host:
    """One host that engines run on."""

    node: str
    hostname: str
    runtime: str
    cpu_count: int
    cpu_percent: float | None
    memory: Device
    gpus: tuple[Device, ...]
    engines: str

    @classmethod
    def of(cls, node: Row, gpus: Sequence[Row], names: dict[str, str]) -> Self:
        """Of an item of `GET /admin/nodes` and all of `GET /admin/system/gpus`; `names` are those of models by id."""
        promised = row(node.get("promised_memory"))
        id_ = text(node.get("id"))
        usage = {text(gpu.get("uuid")): number(gpu.get("utilization")) for gpu in rows(node.get("gpus"))}
        return cls(
            node=id_,
            hostname=text(node.get("hostname")),
            runtime=text(node.get("runtime")),
            cpu_count=int(number(node.get("cpu_count")) or 0),
            cpu_percent=number(node.get("cpu_percent")),
            memory=Device(
                "Memory",
                number(node.get("memory_total")) or 0,
                number(node.get("memory_available")) or 0,
                number(promised.get("cpu")) or 0,
                None,
            ),
            gpus=tuple(_gpu(gpu, usage, names) for gpu in gpus if gpu.get("node") == id_),
            engines=", ".join(f"{engine} {version}" for engine, version in row(node.get("engines")).items()),
        )


def load_tone(share: float) -> str:
    """Colour of a meter."""
    return "bad" if share >= 0.95 else "warn" if share >= 0.85 else "accent"


@dataclass(frozen=True, slots=True)
class Trends:
    """Lines by host, or by GPU; percent."""

    cpu: dict[str, Points]
    memory: dict[str, Points]
    gpu: dict[str, Points]
    gpu_memory: dict[str, Points]


def trends(answer: Row) -> Trends:
    """Read `GET /admin/system/host/trends`."""
    made = Trends({}, {}, {}, {})
    for host in rows(answer.get("items")):
        name, total = text(host.get("hostname")), number(host.get("memory_total")) or 0
        for point in rows(host.get("points")):
            at = text(point.get("at"))
            made.cpu.setdefault(name, []).append([at, number(point.get("cpu_percent"))])
            available = number(point.get("memory_available"))
            made.memory.setdefault(name, []).append([at, _used(available, total)])
            for gpu in rows(point.get("gpus")):
                label = f"{name} GPU {text(gpu.get('index'))}"
                free, size = number(gpu.get("memory_free")), number(gpu.get("memory_total")) or 0
                made.gpu.setdefault(label, []).append([at, number(gpu.get("utilization"))])
                made.gpu_memory.setdefault(label, []).append([at, _used(free, size)])
    return made


def findings(examination: Row) -> list[Row]:
    """Of the doctor, the gravest first."""
    return sorted(rows(examination.get("items")), key=lambda one: _GRAVITY.get(text(one.get("verdict")), 0))


def _used(free: float | None, total: float) -> float | None:
    return round(100 * (1 - free / total), 1) if free is not None and total else None


def _gpu(gpu: Row, usage: dict[str, float | None], names: dict[str, str]) -> Device:
    return Device(
        name=f"GPU {text(gpu.get('index'))}: {text(gpu.get('name'))}",
        total=number(gpu.get("memory_total")) or 0,
        free=number(gpu.get("memory_free")) or 0,
        promised=number(gpu.get("memory_promised")) or 0,
        utilization=usage.get(text(gpu.get("uuid"))),
        models=tuple(names.get(model, model) for model in texts(gpu.get("models"))),
    )
