"""`cortex logout`."""

import asyncio
import os

import typer

from cortex_cli.adapters.admin_api import admin_api
from cortex_cli.connection import Endpoint
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import console
from cortex_cli.profiles import Profile, load_profiles, profiles_file, save_profiles

app = typer.Typer()


@app.command(epilog="Examples: `cortex logout` · `cortex logout --profile work`")
def logout() -> None:
    """Sign out: revokes the token of the profile and forgets the profile."""
    path = profiles_file(os.environ)
    profiles = load_profiles(path)
    chosen = profiles.chosen(os.environ)
    if chosen is None:
        raise CliError("You are not signed in: there is no current profile.", exit_code=ExitCode.USAGE)
    name = chosen[0]
    problem = asyncio.run(_revoke(profiles.get(name)))
    save_profiles(path, profiles.without(name))
    console().print(f"signed out; profile {name} removed", markup=False)
    if problem is not None:
        typer.echo(f"warning: the token was not revoked, it expires: {problem}", err=True)


async def _revoke(profile: Profile) -> str | None:
    """Why it could not be revoked, or None."""
    try:
        async with admin_api(Endpoint(profile.registry_url, profile.token)) as api:
            await api.call("DELETE", f"/admin/me/tokens/{profile.token_id}")
    except CliError as error:
        return None if error.code in ("unauthorized", "token_not_found") else error.message
    return None
