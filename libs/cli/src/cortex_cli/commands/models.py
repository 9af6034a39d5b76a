"""What the commands of models and recipes share: find one, read its fields from files, show what was warned of."""

import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.arguments import find_model, model_body
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import console, print_json
from cortex_cli.shapes import as_list, as_object

Model = Annotated[str, typer.Argument(help="Name, served name or id.")]
FileOption = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="JSON or TOML file with fields; - reads JSON from standard input."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any field of the admin API as key=value (JSON or text). Repeat it.")
]
MAX_FILE_BYTES = 4 * 1024 * 1024


async def find(api: AdminApi, wanted: str) -> Row:
    """A model by id, name, served name or alias, archived or not.

    Raises:
        CliError: none, or several, go by that name.
    """
    return dict(find_model(await api.rows("/admin/models?archived=true"), wanted))


async def path_to(api: AdminApi, wanted: str, act: str = "") -> str:
    """The path of a model, or of an act upon it."""
    model_id = quote(str((await find(api, wanted))["id"]), safe="")
    return f"/admin/models/{model_id}{f'/{act}' if act else ''}"


def read_fields(file: Path | None, assignments: Sequence[str] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a file, then of options, then of `--set`: the later one wins.

    Raises:
        CliError: the file cannot be read, or holds no object.
    """
    fields = read_object(file) if file is not None else {}
    return {**fields, **model_body(options, assignments or [])}


def read_object(file: Path) -> dict[str, Any]:
    """A JSON or TOML object.

    Raises:
        CliError: see `read_fields`.
    """
    try:
        text = sys.stdin.read(MAX_FILE_BYTES + 1) if str(file) == "-" else _read(file)
        value: object = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}.", exit_code=ExitCode.USAGE) from error
    except ValueError as error:
        raise CliError(f"{file} is neither JSON nor TOML: {error}.", exit_code=ExitCode.USAGE) from error
    if not as_object(value) or len(text) > MAX_FILE_BYTES:
        raise CliError(f"{file} holds no object with fields, or a far too large one.", exit_code=ExitCode.USAGE)
    return as_object(value)


def _read(file: Path) -> str:
    with file.open(encoding="utf-8") as stream:
        return stream.read(MAX_FILE_BYTES + 1)


def show_warnings(answer: Mapping[str, Any]) -> None:
    """What the registry accepted with a word, on standard error."""
    for one in (as_object(item) for item in as_list(answer.get("warnings"))):
        field = f"{one['field']}: " if one.get("field") else ""
        print(f"! {field}{one.get('message')}", file=sys.stderr)


def report(model: Row, text: str, *, as_json: bool) -> None:
    """The answer for programs, or a line for people and the warnings."""
    if as_json:
        print_json(model)
        return
    console().print(text, markup=False)
    show_warnings(model)


def state_of(model: Mapping[str, Any]) -> str:
    """Name, state and reason in a line."""
    reason = f" ({model['reason']})" if model.get("reason") else ""
    archived = ", archived" if model.get("archived_at") else ""
    return f"{model.get('name')}: {model.get('state')}{reason}{archived}"
