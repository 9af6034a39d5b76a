"""`cortex doctor`."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import typer

from cortex_cli.adapters.admin_api import admin_api
from cortex_cli.commands.options import HomeOption, JsonOption, connection_of
from cortex_cli.connection import Endpoint
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import console, print_json, table
from cortex_cli.stack import lock, ports
from cortex_cli.stack.embedded import GATEWAY_PORT, REGISTRY_PORT
from cortex_cli.stack.home import Home, find_home
from cortex_cli.stack.nats import find_server
from cortex_cli.stack.postgres_binaries import choose, discover

app = typer.Typer()
GIB = 1024**3
MARKS = {"ok": "ok", "warning": "warning", "failed": "FAILED"}


@dataclass(frozen=True, slots=True)
class Found:
    """One check: where it was made, what was found, what to do (None: nothing)."""

    where: str
    name: str
    verdict: str
    found: str
    fix: str | None = None


@app.command(epilog="Examples: `cortex doctor` · `cortex doctor --json` · `cortex doctor --profile production`")
def doctor(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Examine this machine and the Cortex it talks to: each check has a verdict and a fix. Exit code 1 when one failed."""
    findings = asyncio.run(_gather(find_home(home, os.environ)))
    if as_json:
        print_json({"verdict": _worst(findings), "items": [asdict(one) for one in findings]})
    else:
        out = console()
        rows = [(MARKS.get(one.verdict, one.verdict), one.where, one.name, one.found) for one in findings]
        out.print(table(("verdict", "where", "check", "found"), rows))
        for one in findings:
            if one.fix:
                out.print(f"\n{MARKS.get(one.verdict, one.verdict)}: {one.found}\n  fix: {one.fix}", markup=False)
    if _worst(findings) == "failed":
        raise typer.Exit(ExitCode.FAILED)


def _worst(findings: list[Found]) -> str:
    return next((one for one in ("failed", "warning") if any(found.verdict == one for found in findings)), "ok")


async def _gather(home: Home) -> list[Found]:
    runs_here = lock.holder(home.lock) is not None
    findings = [*_this_machine(home, runs_here=runs_here)]
    try:
        endpoint = connection_of(home).registry()
    except CliError as error:
        return [*findings, Found("cortex", "registry", "warning", error.message)]
    return [*findings, *await _installation(endpoint)]


def _this_machine(home: Home, *, runs_here: bool) -> Iterator[Found]:
    here = "this machine"
    yield Found(here, "python", "ok", f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}")
    yield _disk(home.root)
    memory = psutil.virtual_memory()
    found = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available"
    little = memory.available < 2 * GIB
    fix = "Close what uses the memory, or choose a smaller model." if little else None
    yield Found(here, "memory", "warning" if little else "ok", found, fix)
    for variable, default in ((GATEWAY_PORT, 8080), (REGISTRY_PORT, 8081)):
        yield _port(variable, ports.public_port(os.environ, variable, default), runs_here=runs_here)
    yield _program("nats-server", lambda: str(find_server()))
    yield _program("postgres", lambda: str(choose(discover(), None).folder))


def _disk(root: Path) -> Found:
    there = next(one for one in (root, *root.parents) if one.exists())
    usage = shutil.disk_usage(there)
    found = f"{root}: {usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free"
    verdict = "failed" if usage.free < GIB else "warning" if usage.free < 10 * GIB else "ok"
    fix = None if verdict == "ok" else "Free space, or set CORTEX_HOME to a larger disk."
    return Found("this machine", "disk", verdict, found, fix)


def _port(variable: str, port: int, *, runs_here: bool) -> Found:
    if ports.is_free(port):
        return Found("this machine", "port", "ok", f"{port} is free")
    if runs_here:
        return Found("this machine", "port", "ok", f"{port} is taken by the Cortex that runs here")
    return Found(
        "this machine", "port", "warning", f"{port} is taken by another program", f"Set {variable} to a free port."
    )


def _program(name: str, find: Callable[[], str]) -> Found:
    try:
        return Found("this machine", name, "ok", find())
    except CliError as error:
        return Found("this machine", name, "failed", error.message, error.fix or None)


async def _installation(endpoint: Endpoint) -> list[Found]:
    try:
        async with admin_api(endpoint) as api:
            answer = await api.call("GET", "/admin/doctor")
    except CliError as error:
        return [Found("cortex", "registry", "failed", error.message, error.fix or "Look into the registry's log.")]
    return [
        Found(str(item["where"]), str(item["name"]), str(item["verdict"]), str(item["found"]), item.get("fix"))
        for item in answer.get("items", [])
    ]
