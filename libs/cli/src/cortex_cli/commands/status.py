"""`cortex status`."""

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row, admin_api
from cortex_cli.commands.options import HomeOption, JsonOption, connection_of
from cortex_cli.connection import read_ready
from cortex_cli.errors import CliError, not_running
from cortex_cli.output import console, duration, print_json, table
from cortex_cli.stack import lock, ports, services
from cortex_cli.stack.home import Home, find_home
from cortex_cli.stack.probes import http_ready, nats_ready
from cortex_cli.stack.records import ProcessRecords

app = typer.Typer()


@app.command(epilog="Examples: `cortex status` · `cortex status --json`")
def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show addresses, processes and models. Exit code 3 when Cortex does not run here."""
    report = asyncio.run(_gather(find_home(home, os.environ)))
    if as_json:
        print_json(report)
        return
    out = console()
    for name in ("gateway_url", "registry_url", "models_dir", "home"):
        if report.get(name):
            out.print(f"{name:<13}{report[name]}", markup=False)
    if report["processes"]:
        rows = [(item["name"], item["state"], item["pid"], duration(item["uptime_s"])) for item in report["processes"]]
        out.print(table(("process", "state", "pid", "up"), rows))
    if report["models"] is None:
        out.print("models: the registry does not answer")
        return
    models = [(model.get("name"), model.get("state"), model.get("reason") or "") for model in report["models"]]
    out.print(table(("model", "state", "reason"), models) if models else "no models yet")


async def _gather(home: Home) -> dict[str, Any]:
    connection = connection_of(home)
    runs_here = lock.holder(home.lock) is not None
    try:
        endpoint = connection.registry()
    except CliError:
        if not runs_here:
            raise
        endpoint = None
    models: list[Row] | None = None
    if endpoint is not None:
        async with admin_api(endpoint) as api:
            models = await _models(api, runs_here=runs_here)
    known = read_ready(home.ready)
    return {
        "home": str(home.root) if runs_here else None,
        "ready": bool(known),
        "gateway_url": os.environ.get("CORTEX_GATEWAY_URL") or known.get("gateway_url"),
        "registry_url": endpoint.url if endpoint else None,
        "models_dir": known.get("models_dir"),
        "processes": await _processes(home) if runs_here else [],
        "models": models,
    }


async def _models(api: AdminApi, *, runs_here: bool) -> list[Row] | None:
    try:
        return await api.models()
    except CliError as error:
        if not runs_here and error.exit_code == not_running().exit_code:
            raise
        return None


async def _processes(home: Home) -> list[Mapping[str, Any]]:
    known = ports.recall(home.ports)
    living = {record.name: record for record in ProcessRecords(home.processes).living()}

    async def one(name: str) -> Mapping[str, Any]:
        record = living.get(name)
        if record is None:
            return {"name": name, "state": "not running", "pid": None, "uptime_s": 0.0}
        ready = await _is_ready(name, known.get(name, 0))
        state = "ready" if ready else "not ready"
        return {"name": name, "state": state, "pid": record.pid, "uptime_s": time.time() - record.started}

    names = [*services.SERVICES, "nats", *(["postgres"] if "postgres" in living else [])]
    return await asyncio.gather(*(one(name) for name in names))


async def _is_ready(name: str, port: int) -> bool:
    if name == "postgres":
        return True  # its readiness needs its password; the registry's tells
    return await (nats_ready(port) if name == "nats" else http_ready(port))()
