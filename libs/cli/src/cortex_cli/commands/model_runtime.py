"""`cortex model` dry-run, test, logs, readiness, load."""

import asyncio
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row, admin_api
from cortex_cli.adapters.live_log import follow
from cortex_cli.commands.calls import call
from cortex_cli.commands.models import FileOption, Model, SetOption, path_to, read_fields, show_warnings
from cortex_cli.commands.options import HomeOption, JsonOption, connection
from cortex_cli.errors import CliError
from cortex_cli.output import console, print_json, size, table
from cortex_cli.shapes import as_list, as_object

_PATIENCE_S = 120.0
_PARTS = ("weights", "kv", "compute", "output", "other")


def register(app: typer.Typer) -> None:
    """Add the commands to `cortex model`."""
    app.command(
        "dry-run",
        epilog="Examples: `cortex model dry-run my-model --set context_size=65536` · "
        "`cortex model dry-run --set engine_type=llamacpp --set local_path=a.gguf --set name=a`",
    )(dry_run)
    app.command("test", epilog='Examples: `cortex model test my-model` · `cortex model test my-model --prompt "Hi"`')(
        send_test
    )
    app.command(epilog="Examples: `cortex model logs my-model --tail 1000` · `cortex model logs my-model -f`")(logs)
    app.command(epilog="Example: `cortex model readiness my-model && echo ready`")(readiness)
    app.command(epilog="Example: `cortex model load`")(load)


def dry_run(
    model: Annotated[
        str | None, typer.Argument(help="A model that is there; without it one from -f and --set.")
    ] = None,
    file: FileOption = None,
    settings: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the command that would run, its memory, and where it would go. Nothing is stored or started."""
    fields = read_fields(file, settings, {})

    async def use(api: AdminApi) -> Row:
        path = "/admin/models/dry-run" if model is None else await path_to(api, model, "dry-run")
        return await api.call("POST", path, fields, timeout=_PATIENCE_S)

    answer = call(home, use)
    if as_json:
        print_json(answer)
    else:
        _show_dry_run(answer)


def send_test(
    model: Model,
    prompt: Annotated[str | None, typer.Option(help="What to ask.")] = None,
    ordinal: Annotated[int | None, typer.Option(help="Which replica.", min=0)] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send one small real request to a healthy replica; exit code 1 when it is not answered well."""
    body = {name: value for name, value in (("prompt", prompt), ("ordinal", ordinal)) if value is not None}

    async def use(api: AdminApi) -> Row:
        return await api.call("POST", await path_to(api, model, "test"), body, timeout=_PATIENCE_S)

    answer = call(home, use)
    if as_json:
        print_json(answer)
    else:
        spent = f"{answer.get('duration_ms', 0):.0f} ms"
        tokens = f", {answer.get('prompt_tokens')} + {answer.get('completion_tokens')} tokens"
        what = answer.get("output") if answer.get("ok") else answer.get("error")
        console().print(f"{'ok' if answer.get('ok') else 'failed'} in {spent}{tokens}: {what}", markup=False)
    if not answer.get("ok"):
        raise typer.Exit(1)


def logs(
    model: Model,
    tail: Annotated[int, typer.Option(help="How many lines.", min=1, max=5000)] = 200,
    ordinal: Annotated[int, typer.Option(help="Which replica.", min=0)] = 0,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes. Ctrl-C ends it.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the last lines of the engine's output."""
    if following:
        try:
            asyncio.run(_follow(home, model, f"tail={tail}&ordinal={ordinal}&follow=true", as_json=as_json))
        except KeyboardInterrupt:
            return
        return

    async def use(api: AdminApi) -> Row:
        return await api.call("GET", f"{await path_to(api, model, 'logs')}?ordinal={ordinal}&tail={tail}")

    lines = [str(line) for line in as_list(call(home, use).get("lines"))]
    if as_json:
        print_json(lines)
        return
    for line in lines:
        print(line)


def readiness(model: Model, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Tell whether a model answers now, and if not, why; exit code 1 when it does not."""

    async def use(api: AdminApi) -> Row:
        return await api.call("GET", await path_to(api, model, "readiness"))

    answer = call(home, use)
    if as_json:
        print_json(answer)
    else:
        verdict = "ready" if answer.get("ready") else "not ready"
        console().print(f"{verdict}: {answer.get('state')}, {answer.get('reason')}", markup=False)
    if not answer.get("ready"):
        raise typer.Exit(1)


def load(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what each model is doing: requests running and waiting, as last probed."""
    models = call(home, lambda api: api.rows("/admin/models/metrics"))
    if as_json:
        print_json(models)
        return
    columns = ("model", "engine", "state", "healthy", "running", "waiting", "slots")
    rows = [
        (
            one.get("served_model_name"),
            one.get("engine_type"),
            one.get("state"),
            f"{one.get('replicas_healthy')}/{one.get('replicas_wanted')}",
            one.get("running"),
            one.get("waiting"),
            one.get("slots_total"),
        )
        for one in models
    ]
    console().print(table(columns, rows) if rows else "no models yet: `cortex model create --help`")


async def _follow(home: Path | None, model: str, query: str, *, as_json: bool) -> None:
    endpoint = connection(home).registry()
    async with admin_api(endpoint) as api:
        path = await path_to(api, model, "logs")
    async for event, data in follow(endpoint, f"{path}?{query}"):
        if as_json:
            print(json.dumps({"event": event, **data}, ensure_ascii=False), flush=True)
        elif event == "log":
            if data.get("skipped"):
                print(f"... {data['skipped']} lines skipped", file=sys.stderr)
            for line in as_list(data.get("lines")):
                print(line, flush=True)
        elif event == "end":
            raise CliError(f"The log ended: {data.get('reason')}.", code="log_ended")


def _show_dry_run(answer: Mapping[str, Any]) -> None:
    out = console()
    command = as_object(answer.get("command"))
    if command:
        where = f"on node {command.get('node')}" + (f", image {command['image']}" if command.get("image") else "")
        out.print(f"command, {where}:", style="bold")
        for name, value in as_object(command.get("env")).items():
            print(f"  {name}={shlex.quote(str(value))} \\")
        # A process is started by its path; a container by the entry point of its image.
        program = [str(command["image"])] if str(command.get("image")).startswith("/") else []
        print("  " + shlex.join([*program, *(str(word) for word in as_list(command.get("argv")))]))
    else:
        out.print(f"command: not known. {answer.get('command_reason')}", markup=False)
    estimate = as_object(answer.get("estimate"))
    if estimate:
        _show_memory(estimate)
    else:
        out.print(f"memory: not known. {answer.get('estimate_reason')}", markup=False)
    placement = as_object(answer.get("placement"))
    if placement:
        fits = {True: "fits", False: "does not fit", None: "not known"}[placement.get("fits")]
        out.print(f"placement: {fits}. {placement.get('reason')}", markup=False)
        for proposal in as_list(placement.get("proposals")):
            out.print(f"  would fit: {proposal}", markup=False)
    show_warnings(answer)


def _show_memory(estimate: Mapping[str, Any]) -> None:
    rows: list[tuple[object, ...]] = []
    for memory in (as_object(one) for one in as_list(estimate.get("devices"))):
        fits = {True: "yes", False: "no", None: "?"}[memory.get("fits")]
        parts = (size(memory.get(part, 0)) for part in (*_PARTS, "total"))
        rows.append((memory.get("device"), *parts, size(memory.get("free")), fits))
    rows.append(("total", *("" for _ in _PARTS), size(estimate.get("total")), "", ""))
    console().print(table(("device", *_PARTS, "total", "free", "fits"), rows))
    if not estimate.get("known"):
        console().print(f"The total is a lower bound: {estimate.get('reason')}.", markup=False)
