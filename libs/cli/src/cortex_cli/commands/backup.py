"""`cortex backup ...`."""

import asyncio
import time
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.commands.calls import call, given
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.errors import CliError
from cortex_cli.output import age, console, details, print_json, size, table

app = typer.Typer(
    no_args_is_help=True,
    help="Back Cortex up and restore it. Backups lie below CORTEX_EXPORT_DIR, where the registry runs.",
    rich_markup_mode="markdown",
)
Name = Annotated[str, typer.Argument(help="Name of the backup.")]
JobId = Annotated[str, typer.Argument(help="Id of the job.")]
WithFiles = Annotated[bool, typer.Option("--model-files", help="The weights, too: large.")]
WithoutUsage = Annotated[bool, typer.Option("--without-usage", help="Leave usage records out: they are the most.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when it is over.")]
PATH = "/admin/deployment"
_USUAL = ["database", "models", "settings"]
_POLL_S = 0.5


def _parts(*, model_files: bool, without_usage: bool) -> dict[str, Any]:
    return {"include": [*_USUAL, *(["model_files"] if model_files else [])], "usage": not without_usage}


@app.command(epilog="Examples: `cortex backup create` · `cortex backup create before-upgrade --model-files`")
def create(
    name: Annotated[str | None, typer.Argument(help="Its name.", show_default="the time")] = None,
    model_files: WithFiles = False,
    without_usage: WithoutUsage = False,
    wait: Wait = True,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Back up the database, all models as a file, and the registry's settings without secrets."""
    body = given(folder=name, **_parts(model_files=model_files, without_usage=without_usage))
    job = call(home, lambda api: _followed(api, "export", body, wait=wait, show=not as_json))
    _ended(job, f"backed up as {job['folder']}", as_json=as_json)


@app.command(epilog="Example: `cortex backup estimate --model-files`")
def estimate(
    model_files: WithFiles = False,
    without_usage: WithoutUsage = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """About how large a backup would become, and whether it fits."""
    body = _parts(model_files=model_files, without_usage=without_usage)
    answer = call(home, lambda api: api.call("POST", f"{PATH}/estimate-size", body, timeout=150.0))
    if as_json:
        print_json(answer)
        return
    rows = [*((part, size(count)) for part, count in answer["parts"].items()), ("all", size(answer["total_bytes"]))]
    console().print(table(("part", "about"), rows))
    fits = {True: "it fits", False: "too little", None: "unknown"}[answer["fits"]]
    console().print(f"free: {size(answer['free_bytes'])} ({fits})", markup=False)
    for missing in answer["missing_files"]:
        console().print(f"not there: {missing}", markup=False)


@app.command("list", epilog="Example: `cortex backup list`")
def list_backups(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Backups, and whether each can be restored now."""
    items = call(home, lambda api: api.rows(f"{PATH}/database-dump"))
    if as_json:
        print_json(items)
        return
    rows = [
        (
            one["folder"],
            age(one["created_at"]),
            size(one["bytes"]),
            ", ".join(one["parts"]),
            one["created_by"],
            "yes" if one["restorable"] else one["problems"][0]["code"],
        )
        for one in items
    ]
    columns = ("name", "age", "size", "holds", "by", "restorable")
    console().print(table(columns, rows) if rows else "no backups yet: `cortex backup create`")


@app.command(epilog="Example: `cortex backup show cortex-20261122-220000`")
def show(name: Name, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """What a backup holds, and what stands against restoring it."""
    found = call(home, lambda api: api.rows(f"{PATH}/database-dump?{urlencode({'folder': name})}"))[0]
    if as_json:
        print_json(found)
        return
    problems, tables = found.pop("problems"), found.pop("tables")
    found |= {"bytes": size(found["bytes"]), "rows": sum(one["rows"] for one in tables)}
    console().print(details(found))
    for problem in problems:
        console().print(f"! {problem['message']} -> {problem['fix']}", markup=False)


@app.command(epilog="Example: `cortex backup models nightly > models.json` · `cortex model import models.json`")
def models(name: Name, home: HomeOption = None) -> None:
    """Print the models of a backup, in the form that `cortex model import` takes."""
    found = call(home, lambda api: api.rows(f"{PATH}/model-manifests?{urlencode({'folder': name})}"))[0]
    if found.get("file") is None:
        raise CliError(f"{name} holds no models.", code="no_models", fix="see `cortex backup show`")
    print_json(found["file"])


@app.command(epilog="Examples: `cortex backup restore nightly` · `cortex backup restore nightly --yes --start`")
def restore(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    start: Annotated[bool, typer.Option("--start", help="Start the models that ran when it was made.")] = False,
    backup_first: Annotated[
        bool, typer.Option("--backup-first/--no-backup-first", help="Back the present database up before.")
    ] = True,
    other_secret_key: Annotated[
        bool, typer.Option("--other-secret-key", help="Accept that secrets sealed with an unknown key are lost.")
    ] = False,
    wait: Wait = True,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace the whole database by a backup's: all of it or nothing. Every model must be stopped."""
    if not yes:
        question = (
            f"Replace every model, key, user and usage record by those of {name}? Everybody has to sign in again."
        )
        typer.confirm(question, abort=True)
    body = {
        "folder": name,
        "confirm": name,
        "start": start,
        "backup_first": backup_first,
        "other_secret_key": other_secret_key,
    }
    job = call(home, lambda api: _followed(api, "restore-database", body, wait=wait, show=not as_json))
    result: Row = job.get("result") or {}
    safety = result.get("safety_backup")
    before = f"\nwhat was there before: {safety}" if safety else ""
    _ended(job, f"restored {name}{before}", as_json=as_json)


@app.command(epilog="Examples: `cortex backup jobs` · `cortex backup jobs --status failed`")
def jobs(
    status: Annotated[str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Backups and restores that were asked for, and how they went."""
    query = urlencode(given(status=status))
    items = call(home, lambda api: api.rows(f"{PATH}/jobs?{query}" if query else f"{PATH}/jobs"))
    if as_json:
        print_json(items)
        return
    rows = [
        (one["id"], one["kind"], one["folder"], one["status"], _how(one), one["requested_by"], age(one["created_at"]))
        for one in items
    ]
    columns = ("job", "kind", "backup", "status", "how", "by", "age")
    console().print(table(columns, rows) if rows else "nothing was asked for yet: `cortex backup create`")


@app.command(epilog="Example: `cortex backup job 01995c3e-7a00-7000-8000-000000000001`")
def job(job_id: JobId, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """How far a job is, or how it ended."""
    found = call(home, lambda api: api.call("GET", _path(job_id)))
    if as_json:
        print_json(found)
        return
    console().print(details(found))


@app.command(epilog="Example: `cortex backup cancel 01995c3e-7a00-7000-8000-000000000001`")
def cancel(job_id: JobId, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """End a backup or a restore. Nothing half done is left."""
    found = call(home, lambda api: api.call("DELETE", _path(job_id)))
    if as_json:
        print_json(found)
    else:
        over = found["status"] == "cancelled"
        console().print("cancelled" if over else "it ends in a moment: see `cortex backup jobs`")


def _path(job_id: str) -> str:
    return f"{PATH}/jobs/{quote(job_id, safe='')}"


async def _followed(api: AdminApi, act: str, body: Row, *, wait: bool, show: bool) -> Row:
    found = await api.call("POST", f"{PATH}/{act}", body)
    shown = ""
    patience = time.monotonic() + 60
    while wait and found["status"] in ("queued", "running"):
        await asyncio.sleep(_POLL_S)
        try:
            found = await api.call("GET", _path(str(found["id"])))
            patience = time.monotonic() + 60
        except CliError:
            # While a restore has the tables, a user's token cannot be looked up; the job goes on.
            if time.monotonic() > patience:
                raise
        if show and found["step"] and found["step"] != shown:
            shown = str(found["step"])
            console().print(f"{shown} ({size(found['done_bytes'])})", style="dim", markup=False)
    return found


def _ended(job: Row, done: str, *, as_json: bool) -> None:
    """Say how it ended; raises CliError for a job that failed."""
    error = job.get("error")
    if as_json:
        print_json(job)
    if error:
        raise CliError(error["message"], code=error["code"], fix=error["fix"])
    if as_json:
        return
    if job["status"] in ("queued", "running"):
        console().print(f"asked for: see `cortex backup job {job['id']}`", markup=False)
    else:
        console().print(done if job["status"] == "succeeded" else str(job["status"]), markup=False)


def _how(job: Row) -> str:
    if job.get("error"):
        return str(job["error"]["code"])
    if job["status"] == "running":
        return f"{job['step']} ({size(job['done_bytes'])})"
    result: Row = job.get("result") or {}
    return size(result["bytes"]) if "bytes" in result else f"{result['rows']} rows" if "rows" in result else ""
