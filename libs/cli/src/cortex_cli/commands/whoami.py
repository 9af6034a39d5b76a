"""`cortex whoami`."""

import asyncio

import typer

from cortex_cli.adapters.admin_api import Row, admin_api
from cortex_cli.commands.options import HomeOption, JsonOption, connection
from cortex_cli.connection import Endpoint
from cortex_cli.output import console, print_json

app = typer.Typer()


@app.command(epilog="Examples: `cortex whoami` · `cortex whoami --profile work --json`")
def whoami(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show which Cortex the commands talk to, as whom, and what you may do there."""
    known = connection(home)
    endpoint = known.registry()
    me = asyncio.run(_me(endpoint))
    if as_json:
        print_json({**me, "registry_url": endpoint.url, "profile": known.profile_name})
        return
    who = "the admin token of the settings" if me.get("kind") == "root" else f"{me.get('username')} ({me.get('role')})"
    lines = [f"{who} at {endpoint.url}", f"profile: {known.profile_name or 'none'}"]
    if me.get("must_change_password"):
        lines.append("the password must be changed first: `cortex login`")
    for line in lines:
        console().print(line, markup=False)


async def _me(endpoint: Endpoint) -> Row:
    async with admin_api(endpoint) as api:
        return await api.call("GET", "/admin/auth/me")
