"""`cortex profile ...`."""

import os
from typing import Annotated

import typer

from cortex_cli.commands.options import JsonOption
from cortex_cli.output import console, print_json, table
from cortex_cli.profiles import LOCAL, load_profiles, profiles_file, save_profiles

app = typer.Typer(
    no_args_is_help=True,
    help="Choose between the Cortex installations you have signed in to (`cortex login` adds one).",
    rich_markup_mode="markdown",
)
Name = Annotated[str, typer.Argument(help="Name of the profile, see `cortex profile list`.")]


@app.command("list", epilog="Examples: `cortex profile list` · `cortex profile list --json`")
def list_profiles(as_json: JsonOption = False) -> None:
    """List the profiles, never their tokens; `*` marks the current one."""
    profiles = load_profiles(profiles_file(os.environ))
    chosen = profiles.chosen(os.environ)
    current = chosen[0] if chosen is not None else LOCAL
    rows = [
        {
            "name": name,
            "current": name == current,
            "registry_url": profile.registry_url,
            "username": profile.username,
            "gateway_url": profile.gateway_url or None,
        }
        for name, profile in sorted(profiles.known.items())
    ]
    if as_json:
        print_json(rows)
        return
    rows.append({"name": LOCAL, "current": current == LOCAL, "registry_url": "the one that runs here", "username": ""})
    shown = [("*" if row["current"] else "", row["name"], row["registry_url"], row["username"]) for row in rows]
    console().print(table(("", "name", "address", "user"), shown))


@app.command(epilog="Examples: `cortex profile use work` · `cortex profile use local`")
def use(name: Name) -> None:
    """Make a profile the current one; `local` is the Cortex that runs here."""
    path = profiles_file(os.environ)
    save_profiles(path, load_profiles(path).use(name))
    console().print(f"current profile: {name}", markup=False)


@app.command(epilog="Examples: `cortex profile remove work`")
def remove(name: Name) -> None:
    """Forget a profile without revoking its token (`cortex logout --profile NAME` does both)."""
    path = profiles_file(os.environ)
    save_profiles(path, load_profiles(path).without(name))
    console().print(f"removed {name}", markup=False)
