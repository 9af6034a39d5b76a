"""`cortex usage ...`."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.arguments import find_key
from cortex_cli.commands.calls import call, find_org, find_user, given
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import console, print_json, table
from cortex_cli.plots import bar, milliseconds, short, thinned

app = typer.Typer(
    no_args_is_help=True,
    help="Who used what, how much, how fast. `--mine` is about your own keys, which needs no rights.",
    rich_markup_mode="markdown",
)
BAR = 32
ROWS = 48
HoursOption = Annotated[float, typer.Option("--hours", help="The last so many hours.", min=0.001)]
ModelOption = Annotated[str | None, typer.Option("--model", help="Only this model (served name or id).")]
KeyOption = Annotated[str | None, typer.Option("--key", help="Only this key (id, name or prefix).")]
UserOption = Annotated[str | None, typer.Option("--user", help="Only this user (name or id).")]
OrgOption = Annotated[str | None, typer.Option("--org", help="Only this organisation (name or id).")]
StatusOption = Annotated[str | None, typer.Option("--status", help="Only this status: 404, or 5xx.")]
MineOption = Annotated[bool, typer.Option("--mine", help="Your own keys only.")]


def _base(mine: bool) -> str:
    return "/admin/me/usage" if mine else "/admin/usage"


async def _filter(
    api: AdminApi, model: str | None, key: str | None, user: str | None, org: str | None, status: str | None
) -> dict[str, Any]:
    """Names as the ids that the admin API takes."""
    return given(
        model=model,
        status=status,
        key=find_key(await api.rows("/admin/keys?limit=1000"), key)["id"] if key is not None else None,
        user=(await find_user(api, user))["id"] if user is not None else None,
        org=(await find_org(api, org))["id"] if org is not None else None,
    )


@app.command(
    epilog="Examples: `cortex usage summary` · `cortex usage summary --by user,model --hours 720` · "
    "`cortex usage summary --status 5xx` · `cortex usage summary --mine`"
)
def summary(
    by: Annotated[
        str, typer.Option(help="model, key, user, org, engine, task, status, outcome, hour or day; several by commas.")
    ] = "model",
    hours: HoursOption = 24,
    model: ModelOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    org: OrgOption = None,
    status: StatusOption = None,
    limit: Annotated[int, typer.Option(help="How many rows.", min=1, max=10_000)] = 20,
    mine: MineOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Requests, tokens and times as a table, the largest first."""

    async def use(api: AdminApi) -> Row:
        query = {"hours": hours, "group_by": by, "limit": limit}
        query |= await _filter(api, model, key, user, org, status)
        return await api.call("GET", f"{_base(mine)}/aggregate?{urlencode(query)}")

    found = call(home, use)
    if as_json:
        print_json(found)
        return
    groups: list[str] = found["group_by"]
    rows = [(*(_label(row, name) for name in groups), *_numbers(row)) for row in found["items"]]
    rows.append(("all", *("" for _ in groups[1:]), *_numbers(found["totals"])))
    columns = ("requests", "failed", "prompt", "cached", "completion", "tokens", "mean", "first token")
    console().print(table((*groups, *columns), rows))


@app.command(
    epilog="Examples: `cortex usage series` · `cortex usage series --bucket day --hours 720 --of tokens` · "
    "`cortex usage series --model big --of errors`"
)
def series(
    bucket: Annotated[str | None, typer.Option(help="minute, hour or day (by the window, if not given).")] = None,
    of: Annotated[str, typer.Option("--of", help="requests, tokens or errors.")] = "requests",
    hours: HoursOption = 24,
    model: ModelOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    org: OrgOption = None,
    status: StatusOption = None,
    mine: MineOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """A bar per step of time, oldest first (UTC)."""
    if of not in ("requests", "tokens", "errors"):
        raise CliError(f"--of {of} is none of requests, tokens, errors.", exit_code=ExitCode.USAGE)
    step = bucket or ("minute" if hours <= 1 else "hour" if hours <= 96 else "day")

    async def use(api: AdminApi) -> Row:
        query = {"hours": hours, "bucket": step} | await _filter(api, model, key, user, org, status)
        return await api.call("GET", f"{_base(mine)}/series?{urlencode(query)}")

    found = call(home, use)
    if as_json:
        print_json(found)
        return
    points: list[Row] = found["items"][0]["points"]
    values, each = thinned([_value(point, of) for point in points], ROWS)
    most = max(values, default=0)
    out = console()
    for index, value in enumerate(values):
        at = str(points[index * each]["at"])[: 10 if step == "day" else 16].replace("T", " ")
        out.print(f"{at}  {short(value):>6}  {bar(value, most, BAR)}", markup=False)
    width = f"{each} {step}s" if each > 1 else f"one {step}"
    out.print(f"{short(sum(values))} {of} since {points[0]['at']}; a line is {width} (UTC)", markup=False)


@app.command(epilog="Examples: `cortex usage latency` · `cortex usage latency --by model --ttft --hours 720`")
def latency(
    by: Annotated[str | None, typer.Option(help="model, key, user, org, engine or task.")] = None,
    ttft: Annotated[bool, typer.Option("--ttft", help="Time to the first token.")] = False,
    hours: HoursOption = 24,
    model: ModelOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    org: OrgOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Percentiles of completed requests (each at most 2.5 % off)."""

    async def use(api: AdminApi) -> Row:
        query = given(hours=hours, group_by=by) | await _filter(api, model, key, user, org, None)
        return await api.call("GET", f"/admin/usage/{'ttft' if ttft else 'latency'}?{urlencode(query)}")

    found = call(home, use)
    if as_json:
        print_json(found)
        return
    names = ("p50", "p90", "p95", "p99", "avg")
    rows = [
        (row["name"] or row["value"] or ("none" if by else "all"), row["count"], *(milliseconds(row[q]) for q in names))
        for row in found["items"]
    ]
    console().print(table((by or "", "requests", *names), rows) if rows else "no completed requests in that time")


@app.command(
    epilog="Examples: `cortex usage export usage.csv` · `cortex usage export usage.jsonl --hours 720` · "
    "`cortex usage export - --status 5xx | head`"
)
def export(
    path: Annotated[Path, typer.Argument(help="File to write: .csv, .json or .jsonl; `-` for standard output.")],
    hours: HoursOption = 24,
    model: ModelOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    org: OrgOption = None,
    status: StatusOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    home: HomeOption = None,
) -> None:
    """Write every record to a file, newest first. A file appears only when it is whole."""
    form = "jsonl" if path.suffix in (".json", ".jsonl", ".ndjson") else "csv"
    if path.exists() and not force and str(path) != "-":
        raise CliError(f"{path} is there already.", fix="name another file, or --force")

    async def to_file(api: AdminApi) -> int:
        query = {"hours": hours, "format": form} | await _filter(api, model, key, user, org, status)
        address = f"/admin/usage/export?{urlencode(query)}"
        if str(path) == "-":
            return await api.download(address, sys.stdout.buffer.write)
        part = path.with_name(path.name + ".part")
        try:
            with part.open("wb") as file:
                size = await api.download(address, file.write)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return size

    try:
        size = call(home, to_file)
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}.") from error
    if str(path) != "-":
        console().print(f"{path}: {size} bytes", markup=False)


def _label(row: Row, name: str) -> object:
    if name in ("hour", "day"):
        return str(row["at"])[: 10 if name == "day" else 16].replace("T", " ")
    if name in ("key", "user", "org"):
        return row[f"{name}_name"] or row[f"{name}_id"] or "none"
    return row[name] if row[name] is not None else "none"


def _numbers(row: Row) -> tuple[str, ...]:
    failed = row["requests"] - row["completed"] - row["client_disconnected"]
    counts = (row["requests"], failed, row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"])
    times = milliseconds(row["avg_duration_ms"]), milliseconds(row["avg_ttft_ms"])
    return (*(short(count) for count in (*counts, row["total_tokens"])), *times)


def _value(point: Row, of: str) -> float:
    if of == "errors":
        return float(point["upstream_error"] + point["rejected"])
    return float(point["total_tokens"] if of == "tokens" else point["requests"])
