"""`cortex model ...`."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row, admin_api
from cortex_cli.arguments import find_model, model_body
from cortex_cli.commands.loading import show_loading
from cortex_cli.commands.options import HomeOption, JsonOption, connection
from cortex_cli.output import age, console, details, print_json, table
from cortex_cli.waiting import until_running

app = typer.Typer(
    no_args_is_help=True,
    help="Create, start and watch models. A MODEL is named by name, served name or id.",
    rich_markup_mode="markdown",
)

_START_S = 900.0

Result = TypeVar("Result")
Model = Annotated[str, typer.Argument(help="Name, served name or id.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the model runs.")]
Patience = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the model.", min=1)]


def _call(home: Path | None, use: Callable[[AdminApi], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        async with admin_api(connection(home).registry()) as api:
            return await use(api)

    return asyncio.run(run())


async def _find(api: AdminApi, wanted: str) -> Row:
    return dict(find_model(await api.models(), wanted))


@app.command(
    epilog="Examples: `cortex model create qwen --engine llamacpp --local-path qwen.gguf --context-size 16384 --start` · "
    '`cortex model create big --engine vllm --repo-id org/model --set tp_size=2 --set \'extra_args=["--seed","1"]\'`'
)
def create(
    name: Annotated[str, typer.Argument(help="Name of the new model.")],
    engine: Annotated[str | None, typer.Option("--engine", help="llamacpp or vllm.", show_default="vllm")] = None,
    local_path: Annotated[str | None, typer.Option(help="File or folder below the models folder.")] = None,
    repo_id: Annotated[str | None, typer.Option(help="Hugging Face repository.")] = None,
    served_name: Annotated[str | None, typer.Option(help="Name clients ask for.", show_default="from NAME")] = None,
    task: Annotated[str | None, typer.Option(help="generate, embed or rerank.", show_default="generate")] = None,
    replicas: Annotated[int | None, typer.Option(help="How many engines.", show_default="1")] = None,
    context_size: Annotated[int | None, typer.Option(help="llama.cpp: tokens of context.")] = None,
    ngl: Annotated[int | None, typer.Option(help="llama.cpp: layers on the GPU.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other field of the admin API as key=value (JSON or text).")
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Start it and wait until it runs.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a model. It does not run before `cortex model start`."""
    body = model_body(
        {
            "name": name,
            "engine_type": engine,
            "local_path": local_path,
            "repo_id": repo_id,
            "served_model_name": served_name,
            "task": task,
            "replicas": replicas,
            "context_size": context_size,
            "ngl": ngl,
        },
        settings or [],
    )
    model = _call(home, lambda api: api.create_model(body))
    if start:
        model = _call(home, lambda api: _start(api, str(model["id"]), timeout=_START_S))
    if as_json:
        print_json(model)
    else:
        hint = "" if start else f"\nstart it with `cortex model start {model.get('name')}`"
        console().print(f"created {model.get('name')} ({model.get('id')}){hint}", markup=False)


@app.command("list", epilog="Examples: `cortex model list` · `cortex model list --json`")
def list_models(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List all models with their observed state."""
    models = _call(home, lambda api: api.models())
    if as_json:
        print_json(models)
        return
    columns = ("name", "served as", "engine", "state", "since", "reason", "id")
    rows = [
        (
            model.get("name"),
            model.get("served_model_name"),
            model.get("engine_type"),
            model.get("state"),
            age(model.get("since")),
            model.get("reason") or "",
            model.get("id"),
        )
        for model in models
    ]
    console().print(table(columns, rows) if rows else "no models yet: `cortex model create --help`")


@app.command(epilog="Examples: `cortex model show my-model` · `cortex model show my-model --json`")
def show(model: Model, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show everything about one model."""

    async def use(api: AdminApi) -> Row:
        return await api.model(str((await _find(api, model))["id"]))

    found = _call(home, use)
    if as_json:
        print_json(found)
    else:
        console().print(details(found))


@app.command(epilog="Examples: `cortex model start my-model` · `cortex model start my-model --no-wait`")
def start(
    model: Model,
    wait: Wait = True,
    timeout: Patience = _START_S,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a model and wait until it runs; exit code 1 when it fails."""

    async def use(api: AdminApi) -> Row:
        found = await _find(api, model)
        if not wait:
            return await api.ask_model(str(found["id"]), "start")
        return await _start(api, str(found["id"]), timeout=timeout)

    _report(_call(home, use), as_json=as_json)


@app.command(epilog="Examples: `cortex model stop my-model`")
def stop(model: Model, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Ask a model to stop; its engines finish what they are answering."""

    async def use(api: AdminApi) -> Row:
        return await api.ask_model(str((await _find(api, model))["id"]), "stop")

    _report(_call(home, use), as_json=as_json)


@app.command(epilog="Examples: `cortex model delete my-model` · `cortex model delete my-model --yes`")
def delete(
    model: Model,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
) -> None:
    """Delete a model. Its files stay in the models folder."""

    async def find(api: AdminApi) -> Row:
        return await _find(api, model)

    found = _call(home, find)
    if not yes:
        typer.confirm(f"Delete {found.get('name')} ({found.get('id')})?", abort=True)
    _call(home, lambda api: api.delete_model(str(found["id"])))
    console().print(f"deleted {found.get('name')}", markup=False)


@app.command(epilog="Examples: `cortex model logs my-model` · `cortex model logs my-model --tail 1000`")
def logs(
    model: Model,
    tail: Annotated[int, typer.Option(help="How many lines.", min=1, max=5000)] = 200,
    ordinal: Annotated[int, typer.Option(help="Which replica.", min=0)] = 0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the last lines of the engine's output."""

    async def use(api: AdminApi) -> list[str]:
        return await api.model_logs(str((await _find(api, model))["id"]), ordinal=ordinal, tail=tail)

    lines = _call(home, use)
    if as_json:
        print_json(lines)
        return
    for line in lines:
        print(line)


async def _start(api: AdminApi, model_id: str, *, timeout: float) -> Row:
    found = await api.ask_model(model_id, "start")
    with show_loading(str(found.get("name"))) as on_change:
        return await until_running(api, model_id, timeout=timeout, on_change=on_change)


def _report(model: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(model)
        return
    reason = f" ({model['reason']})" if model.get("reason") else ""
    console().print(f"{model.get('name')}: {model.get('state')}{reason}", markup=False)
