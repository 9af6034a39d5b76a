"""`--profile` on every command: one option, added to each when it is built."""

import os
from typing import Annotated, Any

import typer

from cortex_cli.errors import CliError
from cortex_cli.profiles import PROFILE_VARIABLE, load_profiles, profiles_file


def _complete(incomplete: str) -> list[str]:
    try:
        names = load_profiles(profiles_file(os.environ)).known
    except CliError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def _remember(value: str | None) -> None:
    """Whoever looks for the Cortex to talk to reads the environment."""
    if value:
        os.environ[PROFILE_VARIABLE] = value


ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="Profile to use, made by `cortex login`; `local` is the Cortex that runs here.",
        envvar=PROFILE_VARIABLE,
        callback=_remember,
        expose_value=False,
        autocompletion=_complete,
    ),
]


def add_profile_option(command: Any) -> None:
    """Add the option to a command, or to every command of a group. (Typer keeps its command type to itself.)"""
    children = getattr(command, "commands", None)
    if children:
        for child in children.values():
            add_profile_option(child)
        return
    if not any("--profile" in parameter.opts for parameter in command.params):
        command.params.append(_option())


def _option() -> Any:
    source = typer.Typer(add_completion=False)

    @source.command()
    def _holder(profile: ProfileOption = None) -> None:  # pyright: ignore[reportUnusedFunction] - Typer reads it
        del profile

    return typer.main.get_command(source).params[0]
