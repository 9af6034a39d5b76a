"""How commands of people and organisations call the admin API."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from cortex_cli.adapters.admin_api import AdminApi, Row, admin_api
from cortex_cli.commands.options import connection
from cortex_cli.errors import CliError

Result = TypeVar("Result")


def call(home: Path | None, use: Callable[[AdminApi], Awaitable[Result]]) -> Result:
    """Run `use` with the admin API. Raises CliError."""

    async def run() -> Result:
        async with admin_api(connection(home).registry()) as api:
            return await use(api)

    return asyncio.run(run())


def given(**fields: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in fields.items() if value is not None}


async def find_user(api: AdminApi, wanted: str) -> Row:
    """By id or user name. Raises CliError `user_not_found`."""
    return _one(await api.rows("/admin/users"), wanted, "username", "user")


async def find_org(api: AdminApi, wanted: str) -> Row:
    """By id or name. Raises CliError `org_not_found`."""
    return _one(await api.rows("/admin/orgs"), wanted, "name", "org")


def path_of(kind: str, row: Mapping[str, Any]) -> str:
    """The path of one thing."""
    return f"/admin/{kind}/{quote(str(row['id']), safe='')}"


def _one(rows: Sequence[Row], wanted: str, name: str, kind: str) -> Row:
    for matches in (
        [row for row in rows if row.get("id") == wanted],
        [row for row in rows if row.get(name) == wanted],
        [row for row in rows if str(row.get(name)).casefold() == wanted.casefold()],
    ):
        if len(matches) == 1:
            return matches[0]
    raise CliError(f"There is no {kind} {wanted}.", code=f"{kind}_not_found", fix=f"see `cortex {kind} list`")
