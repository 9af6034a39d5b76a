"""`cortex key ...`."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row, admin_api
from cortex_cli.arguments import find_key, parse_assignments
from cortex_cli.commands.options import HomeOption, JsonOption, connection
from cortex_cli.output import age, console, print_json, table

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.", rich_markup_mode="markdown")

Result = TypeVar("Result")


def _call(home: Path | None, use: Callable[[AdminApi], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        async with admin_api(connection(home).registry()) as api:
            return await use(api)

    return asyncio.run(run())


@app.command(epilog="Examples: `cortex key create alice` · `cortex key create ci --model smollm2-135m --days 30`")
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, or what for.")],
    models: Annotated[list[str] | None, typer.Option("--model", help="Only this model (repeatable).")] = None,
    scopes: Annotated[list[str] | None, typer.Option("--scope", help="Only this scope (repeatable).")] = None,
    days: Annotated[float | None, typer.Option(help="Days until it expires.", min=0.001)] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other field of the admin API as key=value (JSON or text).")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key. It is shown this once and never again."""
    body: dict[str, Any] = {"name": name}
    body |= {field: values for field, values in (("models", models), ("scopes", scopes)) if values}
    if days is not None:
        body["expires_at"] = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    key = _call(home, lambda api: api.create_key({**body, **parse_assignments(settings or [])}))
    if as_json:
        print_json(key)
    else:
        print(key["key"])


@app.command("list", epilog="Examples: `cortex key list` · `cortex key list --json`")
def list_keys(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List all API keys (never their secret)."""
    keys = _call(home, lambda api: api.keys())
    if as_json:
        print_json(keys)
        return
    rows = [
        (
            key.get("name"),
            key.get("prefix"),
            ",".join(key.get("scopes") or ["*"]),
            ",".join(key.get("models") or ["all"]),
            age(key.get("created_at")),
            key.get("expires_at") or "never",
            "revoked" if key.get("revoked_at") else "",
            key.get("id"),
        )
        for key in keys
    ]
    columns = ("name", "prefix", "scopes", "models", "age", "expires", "", "id")
    console().print(table(columns, rows) if rows else "no keys yet: `cortex key create NAME`")


@app.command(epilog="Examples: `cortex key revoke alice`")
def revoke(
    key: Annotated[str, typer.Argument(help="Id, name or prefix.")],
    home: HomeOption = None,
) -> None:
    """Revoke an API key at once and for ever."""

    async def use(api: AdminApi) -> Row:
        found = dict(find_key(await api.keys(), key))
        await api.revoke_key(str(found["id"]))
        return found

    console().print(f"revoked {_call(home, use).get('name')}", markup=False)
