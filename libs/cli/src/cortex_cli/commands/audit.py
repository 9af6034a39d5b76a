"""`cortex audit`."""

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.commands.calls import call
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import console, print_json, table
from cortex_cli.shapes import as_object

app = typer.Typer(no_args_is_help=True, help="Who did what, when, from where.", rich_markup_mode="markdown")

Actor = Annotated[str | None, typer.Option("--actor", help="Only acts of this user.")]
Action = Annotated[str | None, typer.Option("--action", help="Only this act; * at the end is the rest: 'model.*'.")]
Subject = Annotated[str | None, typer.Option("--subject", help="Only acts upon this: model/ID, or 'key/*'.")]
Request = Annotated[str | None, typer.Option("--request", help="Only acts of this request: id.")]
Since = Annotated[str | None, typer.Option("--since", help="Not before this time, like 2026-01-31T12:00:00Z.")]
Until = Annotated[str | None, typer.Option("--until", help="Before this time.")]


@app.command("list", epilog="Examples: `cortex audit list` · `cortex audit list --actor alice --action 'model.*'`")
def list_entries(
    actor: Actor = None,
    action: Action = None,
    subject: Subject = None,
    request: Request = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many, the newest first.", min=1, max=1000)] = 50,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what was done, newest first, with what it changed."""
    query = _query(actor=actor, action=action, subject=subject, request_id=request, since=since, until=until)
    path = f"/admin/audit?{urlencode({**query, 'limit': limit})}"

    async def use(api: AdminApi) -> list[Row]:
        return [as_object(item) for item in (await api.call("GET", path)).get("items", [])]

    entries = call(home, use)
    if as_json:
        print_json(entries)
        return
    columns = ("time", "who", "from", "act", "upon", "change")
    rows = [
        (
            str(entry.get("at"))[:19].replace("T", " "),
            entry.get("actor"),
            entry.get("address"),
            entry.get("action"),
            entry.get("subject"),
            change(entry),
        )
        for entry in entries
    ]
    console().print(table(columns, rows) if rows else "nothing matches")


@app.command(epilog="Examples: `cortex audit export -o audit.csv` · `cortex audit export --format jsonl | jq .actor`")
def export(
    file: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.", show_default="stdout")] = None,
    kind: Annotated[str, typer.Option("--format", help="csv or jsonl.")] = "csv",
    actor: Actor = None,
    action: Action = None,
    subject: Subject = None,
    request: Request = None,
    since: Since = None,
    until: Until = None,
    home: HomeOption = None,
) -> None:
    """Export everything that matches, oldest first."""
    query = _query(actor=actor, action=action, subject=subject, request_id=request, since=since, until=until)
    path = f"/admin/audit/export?{urlencode({**query, 'format': kind})}"
    if file is None:
        call(home, lambda api: api.download(path, sys.stdout.buffer.write))
        sys.stdout.flush()
        return
    try:
        with file.open("wb") as out:
            size = call(home, lambda api: api.download(path, out.write))
    except OSError as error:
        raise CliError(f"{file} cannot be written: {error.strerror}.", exit_code=ExitCode.USAGE) from error
    console().print(f"wrote {size} bytes to {file}", markup=False)


def change(entry: dict[str, Any]) -> str:
    """What an act changed, in one line."""
    before, after = as_object(entry.get("before")), as_object(entry.get("after"))
    names = [str(name) for name in entry.get("changed") or sorted({*before, *after})]
    parts = [
        f"{name}: {_short(before[name])} -> {_short(after.get(name))}" if name in before else name for name in names
    ]
    return "; ".join(parts[:6]) + (" …" if len(parts) > 6 else "")


def _short(value: object) -> str:
    text = " ".join(str(value).split()) if value is not None else "-"
    return text if len(text) <= 40 else f"{text[:39]}…"


def _query(**options: str | None) -> dict[str, str]:
    return {name: value for name, value in options.items() if value is not None}
