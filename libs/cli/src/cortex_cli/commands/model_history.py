"""`cortex model` revisions, diff, rollback, export, import."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.commands.calls import call
from cortex_cli.commands.models import Model, path_to, read_object, report, show_warnings
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.errors import CliError
from cortex_cli.output import age, console, details, print_error, print_json, table
from cortex_cli.shapes import as_list, as_object

Version = Annotated[int, typer.Argument(help="Version, as `cortex model revisions` shows it.", min=1)]


def register(app: typer.Typer) -> None:
    """Add the commands to `cortex model`."""
    app.command(epilog="Examples: `cortex model revisions my-model` · `cortex model revisions my-model --show 3`")(
        revisions
    )
    app.command(epilog="Examples: `cortex model diff my-model 3` · `cortex model diff my-model 3 5`")(diff)
    app.command(epilog="Example: `cortex model rollback my-model 3`")(rollback)
    app.command(
        "export", epilog="Examples: `cortex model export my-model > my-model.json` · `cortex model export -o all.json`"
    )(export_models)
    app.command(
        "import",
        epilog="Examples: `cortex model import all.json --dry-run` · `cortex model import all.json --conflict rename`",
    )(import_models)


def revisions(
    model: Model,
    show: Annotated[int | None, typer.Option("--show", help="Show this version with all its fields.", min=1)] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every version a model had: who made it, when, and what it changed."""

    async def use(api: AdminApi) -> list[Row]:
        path = await path_to(api, model, "revisions")
        return [await api.call("GET", f"{path}/{show}")] if show is not None else await api.rows(path)

    found = call(home, use)
    if as_json:
        print_json(found[0] if show is not None else found)
    elif show is not None:
        console().print(details(as_object(found[0].get("fields"))))
    else:
        rows = [
            (
                one.get("version"),
                age(one.get("at")),
                one.get("author"),
                one.get("action"),
                ", ".join(str(field) for field in as_list(one.get("changed"))),
                one.get("request_id"),
            )
            for one in found
        ]
        console().print(table(("version", "age", "author", "action", "changed", "request"), rows))


def diff(
    model: Model,
    before: Version,
    after: Annotated[int | None, typer.Argument(help="Later version.", min=1, show_default="the newest")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two versions, field by field."""

    async def use(api: AdminApi) -> Row:
        until = f"&to={after}" if after is not None else ""
        return await api.call("GET", f"{await path_to(api, model, 'revisions/diff')}?from={before}{until}")

    answer = call(home, use)
    if as_json:
        print_json(answer)
        return
    items = [as_object(one) for one in as_list(answer.get("items"))]
    if not items:
        console().print("nothing differs")
        return
    rows = [(one["field"], _text(one.get("before")), _text(one.get("after"))) for one in items]
    console().print(table(("field", "before", "after"), rows))


def rollback(model: Model, version: Version, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Make a new version with an old configuration. Whether it runs, and its Hugging Face token, stay."""

    async def use(api: AdminApi) -> Row:
        return await api.call("POST", await path_to(api, model, "rollback"), {"version": version})

    answer = call(home, use)
    text = f"{answer.get('name')} is as it was at version {version}: version {answer.get('version')}"
    report(answer, text, as_json=as_json)


def export_models(
    model: Annotated[str | None, typer.Argument(help="Name, served name or id.", show_default="every model")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    home: HomeOption = None,
) -> None:
    """Write models as a file that another Cortex takes. Secrets are left out and named."""

    async def use(api: AdminApi) -> Row:
        path = "/admin/models-export" if model is None else await path_to(api, model, "export")
        return await api.call("GET", path)

    text = json.dumps(call(home, use), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CliError(f"{output} cannot be written: {error.strerror}.") from error


def import_models(
    file: Annotated[Path, typer.Argument(help="File that `cortex model export` wrote; - reads standard input.")],
    conflict: Annotated[
        str, typer.Option(help="error, skip, rename or replace: what to do where a name is taken.")
    ] = "error",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, do nothing.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Import what can be; else all or none.")] = False,
    start: Annotated[bool, typer.Option("--start", help="Start what ran where the file was made.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring models of a file in, all or none. They do not start by themselves."""
    body = read_object(file)
    flags = {"dry_run": dry_run, "partial": partial, "start": start}
    query = "&".join([f"conflict={conflict}", *(f"{name}=true" for name, given in flags.items() if given)])
    answer = call(home, lambda api: _import(api, query, body))
    items = [as_object(one) for one in as_list(answer.get("items"))]
    if as_json:
        print_json(answer)
    else:
        rows = [
            (
                one.get("name"),
                one.get("served_model_name"),
                one.get("outcome"),
                "; ".join([str(one["message"])] if one.get("message") else [])
                or ", ".join(f"set {secret}" for secret in as_list(one.get("missing_secrets"))),
            )
            for one in items
        ]
        console().print(table(("name", "served as", "would be" if dry_run else "outcome", ""), rows))
        for one in items:
            show_warnings(one)
    if any(one.get("outcome") == "failed" for one in items):
        raise typer.Exit(1)


async def _import(api: AdminApi, query: str, body: Row) -> Row:
    """The answer; where all were refused for a few, what would become of each."""
    try:
        return await api.call("POST", f"/admin/models-import?{query}", body, timeout=300)
    except CliError as error:
        if error.code != "import_failed":
            raise
        print_error(error)
        return await api.call("POST", f"/admin/models-import?{query}&dry_run=true", body, timeout=300)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
