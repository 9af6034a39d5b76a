"""`cortex model` patch, edit, clone, restart, apply, archive, unarchive."""

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.commands.calls import call
from cortex_cli.commands.models import (
    FileOption,
    Model,
    SetOption,
    path_to,
    read_fields,
    read_object,
    report,
    state_of,
)
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import console


def register(app: typer.Typer) -> None:
    """Add the commands to `cortex model`."""
    app.command(
        epilog="Examples: `cortex model patch my-model --set context_size=16384 --set threads=null` · "
        "`cortex model patch my-model -f changes.json`"
    )(patch)
    app.command(epilog="Example: `EDITOR=nano cortex model edit my-model`")(edit)
    app.command(epilog="Example: `cortex model clone my-model my-model-2 --set replicas=1`")(clone)
    app.command(epilog="Example: `cortex model restart my-model`")(restart)
    app.command(epilog="Example: `cortex model apply my-model`")(apply)
    app.command(epilog="Example: `cortex model archive my-model`")(archive)
    app.command(epilog="Example: `cortex model unarchive my-model`")(unarchive)


def patch(
    model: Model,
    file: FileOption = None,
    settings: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change fields of a model; null puts a default back. A running model is replaced where it must be."""
    fields = read_fields(file, settings, {})
    if not fields:
        raise CliError("Nothing to change.", fix="give --set key=value or -f FILE", exit_code=ExitCode.USAGE)

    async def use(api: AdminApi) -> Row:
        return await api.call("PATCH", await path_to(api, model), fields)

    found = call(home, use)
    report(found, f"{found.get('name')} is at version {found.get('version')}", as_json=as_json)


def edit(model: Model, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Change a model in your editor ($VISUAL, $EDITOR or vi). What others changed meanwhile is not overwritten."""

    async def load(api: AdminApi) -> tuple[str, Row, Row]:
        path = await path_to(api, model)
        found = await api.call("GET", path)
        return path, found, await api.call("GET", "/admin/capabilities")

    path, found, capabilities = call(home, load)
    before = editable(found, capabilities)
    after = in_editor(before, str(found.get("name")))
    changed: dict[str, Any] = {name: value for name, value in after.items() if before.get(name, ...) != value}
    changed |= dict.fromkeys((name for name in before if name not in after), None)
    if not changed:
        console().print("nothing changed")
        return
    headers = {"If-Match": f'"{found.get("version")}"'}
    answer = call(home, lambda api: api.call("PATCH", path, changed, headers=headers))
    report(answer, f"changed {', '.join(sorted(changed))}: version {answer.get('version')}", as_json=as_json)


def clone(
    model: Model,
    name: Annotated[str, typer.Argument(help="Name of the new model.")],
    served_name: Annotated[str | None, typer.Option(help="Name clients ask for.", show_default="from NAME")] = None,
    file: FileOption = None,
    settings: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a model like another one, its stored token included. It does not start by itself."""
    fields = read_fields(file, settings, {"name": name, "served_model_name": served_name})

    async def use(api: AdminApi) -> Row:
        return await api.call("POST", await path_to(api, model, "clone"), fields)

    found = call(home, use)
    report(found, f"created {found.get('name')} ({found.get('id')})", as_json=as_json)


def restart(model: Model, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Replace every engine of a model by a new one; a stopped model is started."""
    _ask(model, "restart", home, as_json=as_json)


def archive(model: Model, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Stop a model and put it away; its names stay taken. `cortex model list --archived` shows it."""
    _ask(model, "archive", home, as_json=as_json)


def unarchive(model: Model, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Bring an archived model back, stopped."""
    _ask(model, "unarchive", home, as_json=as_json)


def apply(model: Model, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Make the running engines equal to the configuration; says what changes."""

    async def use(api: AdminApi) -> Row:
        return await api.call("POST", await path_to(api, model, "apply"), timeout=60)

    answer = call(home, use)
    report(answer, str(answer.get("message")), as_json=as_json)


def _ask(model: str, act: str, home: Path | None, *, as_json: bool) -> None:
    async def use(api: AdminApi) -> Row:
        return await api.call("POST", await path_to(api, model, act))

    found = call(home, use)
    report(found, state_of(found), as_json=as_json)


def editable(model: Mapping[str, Any], capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a patch may hold, in the order of the capabilities; what is null is left out."""
    engine = next(one for one in capabilities["engines"] if one["engine_type"] == model["engine_type"])
    names = [field["name"] for field in engine["fields"] if not field["write_only"]]
    return {name: model[name] for name in names if model.get(name) is not None}


def in_editor(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the user makes of it. Raises CliError when the editor fails or leaves no JSON object."""
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="cortex-") as folder:
        file = Path(folder) / "model.json"
        file.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        try:
            done = subprocess.run([*editor, str(file)], check=False)
        except OSError as error:
            raise CliError(f"{editor[0]} cannot be started: {error.strerror}.", fix="set EDITOR") from error
        if done.returncode != 0:
            raise CliError(f"{editor[0]} ended with {done.returncode}: {name} is unchanged.")
        return read_object(file)
