"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cortex_cli.connection import Connection
from cortex_cli.profiles import load_profiles, profiles_file
from cortex_cli.stack.home import Home, find_home

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder with all data.", envvar="CORTEX_HOME", show_default="the user's state folder"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def connection(home: Path | None) -> Connection:
    """What is known of the Cortex to talk to."""
    return connection_of(find_home(home, os.environ))


def connection_of(home: Home) -> Connection:
    """As `connection`, of a home that was found already."""
    return Connection(os.environ, home.ready, load_profiles(profiles_file(os.environ)))
