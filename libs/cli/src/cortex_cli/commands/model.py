"""`cortex model ...`."""

from pathlib import Path
from typing import Annotated

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.commands import model_change, model_history, model_runtime, model_why
from cortex_cli.commands.calls import call
from cortex_cli.commands.loading import show_loading
from cortex_cli.commands.models import (
    FileOption,
    Model,
    SetOption,
    find,
    path_to,
    read_fields,
    report,
    show_warnings,
    state_of,
)
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import age, console, details, print_json, table
from cortex_cli.waiting import until_running

app = typer.Typer(
    no_args_is_help=True,
    help="Create, change, start and watch models. A MODEL is named by name, served name or id.",
    rich_markup_mode="markdown",
)

_START_S = 900.0

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the model runs.")]
Patience = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the model.", min=1)]


@app.command(
    epilog="Examples: `cortex model create qwen --engine llamacpp --local-path qwen.gguf --context-size 16384 --start` · "
    '`cortex model create big --engine vllm --repo-id org/model --tp-size 2 --set \'extra_args=["--seed","1"]\'` · '
    "`cortex model create -f model.json`"
)
def create(
    name: Annotated[str | None, typer.Argument(help="Name of the new model.", show_default="from the file")] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="llamacpp or vllm.", show_default="vllm")] = None,
    local_path: Annotated[str | None, typer.Option(help="File or folder below the models folder.")] = None,
    repo_id: Annotated[str | None, typer.Option(help="Hugging Face repository.")] = None,
    hf_token_file: Annotated[
        Path | None, typer.Option(help="File with the Hugging Face token of a gated repository.")
    ] = None,
    served_name: Annotated[str | None, typer.Option(help="Name clients ask for.", show_default="from NAME")] = None,
    alias: Annotated[list[str] | None, typer.Option("--alias", help="A further name. Repeat it.")] = None,
    task: Annotated[str | None, typer.Option(help="generate, embed or rerank.", show_default="generate")] = None,
    replicas: Annotated[int | None, typer.Option(help="How many engines.", show_default="1")] = None,
    placement: Annotated[
        str | None, typer.Option("--gpus", help="GPUs by index, e.g. 0,1.", show_default="auto")
    ] = None,
    lifecycle: Annotated[str | None, typer.Option(help="always, on_demand or manual.", show_default="always")] = None,
    idle_ttl: Annotated[int | None, typer.Option(help="on_demand: idle seconds before it stops.")] = None,
    fallback: Annotated[list[str] | None, typer.Option("--fallback", help="Model that stands in. Repeat it.")] = None,
    image: Annotated[str | None, typer.Option(help="Container image of the engine.")] = None,
    context_size: Annotated[int | None, typer.Option(help="llama.cpp: tokens of context.")] = None,
    parallel: Annotated[int | None, typer.Option(help="llama.cpp: requests at once.")] = None,
    ngl: Annotated[int | None, typer.Option(help="llama.cpp: layers on the GPU.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="vLLM: tokens of context.")] = None,
    tp_size: Annotated[int | None, typer.Option(help="vLLM: GPUs that share every layer.")] = None,
    file: FileOption = None,
    settings: SetOption = None,
    start: Annotated[bool, typer.Option("--start", help="Start it and wait until it runs.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a model. It does not run before `cortex model start`. Fields: `cortex model fields`."""
    body = read_fields(
        file,
        settings,
        {
            "name": name,
            "engine_type": engine,
            "local_path": local_path,
            "repo_id": repo_id,
            "hf_token": _secret(hf_token_file),
            "served_model_name": served_name,
            "aliases": alias,
            "task": task,
            "replicas": replicas,
            "placement": gpus(placement),
            "lifecycle": lifecycle,
            "idle_ttl_s": idle_ttl,
            "fallbacks": fallback,
            "engine_image": image,
            "context_size": context_size,
            "parallel_slots": parallel,
            "ngl": ngl,
            "max_model_len": max_model_len,
            "tp_size": tp_size,
        },
    )
    model = call(home, lambda api: api.create_model(body))
    warned = model
    if start:
        model = call(home, lambda api: _start(api, str(model["id"]), timeout=_START_S))
    if as_json:
        print_json(model)
    else:
        hint = "" if start else f"\nstart it with `cortex model start {model.get('name')}`"
        console().print(f"created {model.get('name')} ({model.get('id')}){hint}", markup=False)
        show_warnings(warned)


@app.command(epilog="Examples: `cortex model fields llamacpp` · `cortex model fields vllm --group performance`")
def fields(
    engine: Annotated[str, typer.Argument(help="llamacpp or vllm.")] = "llamacpp",
    group: Annotated[str | None, typer.Option(help="basic, performance or advanced.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every field a model of an engine may have, for `--set` and files."""
    found = call(home, lambda api: api.call("GET", "/admin/capabilities"))
    engines = {str(one["engine_type"]): one for one in found["engines"]}
    if engine not in engines:
        raise CliError(f"There is no engine {engine} (engines: {', '.join(engines)}).", exit_code=ExitCode.USAGE)
    wanted = [one for one in engines[engine]["fields"] if group in (None, one["group"])]
    if as_json:
        print_json(wanted)
        return
    rows = [
        (
            one["name"],
            "|".join(str(choice) for choice in one["choices"]) or one["type"],
            one["unit"] or "",
            one["default"],
            one["group"],
            one["description"],
        )
        for one in wanted
    ]
    console().print(table(("field", "type", "unit", "default", "group", "what it is"), rows))
    if not engines[engine]["enabled"]:
        console().print(str(engines[engine]["reason"]), markup=False)


@app.command("list", epilog="Examples: `cortex model list` · `cortex model list --archived --json`")
def list_models(
    archived: Annotated[bool, typer.Option("--archived", help="With the archived ones.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all models with their observed state."""
    models = call(home, lambda api: api.rows("/admin/models?archived=true") if archived else api.models())
    if as_json:
        print_json(models)
        return
    columns = ("name", "served as", "engine", "state", "since", "reason", "id")
    rows = [
        (
            model.get("name"),
            model.get("served_model_name"),
            model.get("engine_type"),
            "archived" if model.get("archived_at") else model.get("state"),
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
        return await api.model(str((await find(api, model))["id"]))

    found = call(home, use)
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
        found = await find(api, model)
        if not wait:
            return await api.ask_model(str(found["id"]), "start")
        return await _start(api, str(found["id"]), timeout=timeout)

    found = call(home, use)
    report(found, state_of(found), as_json=as_json)


@app.command(epilog="Examples: `cortex model stop my-model`")
def stop(model: Model, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Ask a model to stop; its engines finish what they are answering."""

    async def use(api: AdminApi) -> Row:
        return await api.call("POST", await path_to(api, model, "stop"))

    found = call(home, use)
    report(found, state_of(found), as_json=as_json)


@app.command(epilog="Examples: `cortex model delete my-model` · `cortex model delete my-model --yes`")
def delete(
    model: Model,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
) -> None:
    """Delete a model. Its files stay in the models folder."""

    found = call(home, lambda api: find(api, model))
    if not yes:
        typer.confirm(f"Delete {found.get('name')} ({found.get('id')})?", abort=True)
    call(home, lambda api: api.delete_model(str(found["id"])))
    console().print(f"deleted {found.get('name')}", markup=False)


async def _start(api: AdminApi, model_id: str, *, timeout: float) -> Row:
    found = await api.ask_model(model_id, "start")
    with show_loading(str(found.get("name"))) as on_change:
        return await until_running(api, model_id, timeout=timeout, on_change=on_change)


def _secret(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise CliError(f"{file} cannot be read.", exit_code=ExitCode.USAGE) from error


def gpus(text: str | None) -> list[int] | str | None:
    """A placement from an option. Raises CliError."""
    if text in (None, "auto"):
        return text
    try:
        return [int(part) for part in (text or "").split(",")]
    except ValueError:
        raise CliError(f"--gpus {text} is no list like 0,1.", exit_code=ExitCode.USAGE) from None


model_change.register(app)
model_runtime.register(app)
model_history.register(app)
model_why.register(app)
