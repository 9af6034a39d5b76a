"""What the status view shows, gathered at intervals. Rendering and comparing are pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from cortex_cli.adapters.admin_api import AdminApi
from cortex_cli.errors import CliError
from cortex_cli.stack.process import Phase, ProcessStatus

_METRICS_S = 2.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The stack at one moment; None where a service did not answer."""

    processes: Sequence[ProcessStatus]
    models: Sequence[Mapping[str, Any]] | None
    requests: int | None
    in_flight: int | None


async def take(processes: Sequence[ProcessStatus], api: AdminApi, gateway_url: str) -> Snapshot:
    """Ask the registry and the gateway; never raises for one that is away."""
    try:
        models = await api.models()
    except CliError:
        models = None
    metrics = await _metrics(gateway_url)
    return Snapshot(
        processes,
        models,
        None if metrics is None else int(total(metrics, "gateway_requests_total")),
        None if metrics is None else int(total(metrics, "gateway_in_flight_requests")),
    )


def total(metrics: str, name: str) -> float:
    """Sum of a metric over its labels, from the Prometheus text format."""
    result = 0.0
    for line in metrics.splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            result += float(line.rpartition(" ")[2])
    return result


def changes(old: Snapshot | None, new: Snapshot) -> list[str]:
    """One line per process or model whose state moved; restarts themselves are told as they happen."""
    before = _states(old) if old is not None else {}
    return [line for key, (state, line) in _states(new).items() if line and before.get(key, (None, ""))[0] != state]


def _states(snapshot: Snapshot) -> dict[str, tuple[object, str]]:
    states: dict[str, tuple[object, str]] = {}
    for item in snapshot.processes:
        passing = item.phase in (Phase.STARTING, Phase.RESTARTING)
        states[f"process {item.name}"] = (item.phase, item.restarts), "" if passing else f"{item.name}: {item.phase}"
    for model in snapshot.models or ():
        state = f"{model.get('state')} ({model.get('reason')})" if model.get("reason") else f"{model.get('state')}"
        states[f"model {model.get('id')}"] = state, f"model {model.get('name')}: {state}"
    return states


async def _metrics(gateway_url: str) -> str | None:
    try:
        async with httpx.AsyncClient(timeout=_METRICS_S, trust_env=False) as client:
            response = await client.get(f"{gateway_url}/metrics")
    except httpx.HTTPError:
        return None
    return response.text if response.is_success else None
