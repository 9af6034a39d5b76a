"""`cortex login`."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from cortex_cli.adapters.admin_api import admin_api
from cortex_cli.commands.options import HomeOption
from cortex_cli.commands.signing_in import (
    Credentials,
    TokenWish,
    ask_new_password,
    ask_password,
    make_token,
    require_address,
    this_machine,
)
from cortex_cli.connection import REGISTRY_URL, Endpoint, read_ready
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import console
from cortex_cli.profiles import LOCAL, Profile, load_profiles, profiles_file, save_profiles
from cortex_cli.stack.home import find_home

app = typer.Typer()


@app.command(
    epilog="Examples: `cortex login` · `cortex login --url https://cortex.example --user alice --profile work` · "
    "`cortex login --user ci --password-stdin < password.txt`"
)
def login(
    url: Annotated[str | None, typer.Option(help="Address of the admin API.", show_default="the known one")] = None,
    user: Annotated[str | None, typer.Option(help="User name; asked for when left out.")] = None,
    name: Annotated[str | None, typer.Option("--profile", help="Name of the profile.", show_default="the host")] = None,
    gateway: Annotated[str | None, typer.Option("--gateway-url", help="Address of the OpenAI-compatible API.")] = None,
    days: Annotated[float, typer.Option(help="Days until the token expires; 0: never.", min=0)] = 90,
    password_stdin: Annotated[
        bool,
        typer.Option("--password-stdin", help="Read the password from standard input (a second line: the new one)."),
    ] = False,
    home: HomeOption = None,
) -> None:
    """Sign in: makes a personal token, keeps it in a profile that only you can read, and makes that the current one.

    The password is kept nowhere. A one-time password has to be replaced by one of your own on the way.
    Where profiles lie: CORTEX_PROFILES, or profiles.json in your configuration folder.
    """
    path = profiles_file(os.environ)
    profiles = load_profiles(path)
    old = profiles.known.get(name) if name is not None else None
    address = require_address(url or (old.registry_url if old else None) or _known_address(home))
    profile_name = name or _name_of(address)
    if profile_name == LOCAL:
        raise CliError(f"{LOCAL} is the Cortex that runs here, not a profile.", exit_code=ExitCode.USAGE)
    username = user or _ask_user()
    credentials = Credentials(
        address,
        username,
        ask_password(username, from_stdin=password_stdin),
        lambda: ask_new_password(from_stdin=password_stdin),
    )
    token = asyncio.run(make_token(credentials, TokenWish(this_machine(), days=days or None)))
    replaced = profiles.known.get(profile_name)
    profile = Profile(address, str(token["token"]), username, str(token["id"]), gateway or "")
    save_profiles(path, profiles.put(profile_name, profile))
    if replaced is not None:
        asyncio.run(_revoke(replaced))
    console().print(f"signed in to {address} as {username}; profile {profile_name}", markup=False)


def _known_address(home: Path | None) -> str:
    known = os.environ.get(REGISTRY_URL) or read_ready(find_home(home, os.environ).ready).get("registry_url")
    if isinstance(known, str) and known:
        return known
    if sys.stdin.isatty():
        return str(typer.prompt("Address of the admin API", err=True))
    raise CliError("Which Cortex? Give its address with --url.", exit_code=ExitCode.USAGE)


def _ask_user() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("User name", err=True))
    raise CliError("Who signs in? Give a user name with --user.", exit_code=ExitCode.USAGE)


def _name_of(address: str) -> str:
    return urlsplit(address).netloc.rpartition("@")[2]


async def _revoke(replaced: Profile) -> None:
    """The token of before is of no more use; when it cannot be revoked it expires."""
    try:
        async with admin_api(Endpoint(replaced.registry_url, replaced.token)) as api:
            await api.call("DELETE", f"/admin/me/tokens/{replaced.token_id}")
    except CliError:
        return
