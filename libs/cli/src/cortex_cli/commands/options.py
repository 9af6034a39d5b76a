"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cortex_cli.connection import Connection
from cortex_cli.stack.home import find_home

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder with all data.", envvar="CORTEX_HOME", show_default="the user's state folder"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def connection(home: Path | None) -> Connection:
    """What is known of the Cortex to talk to."""
    return Connection(os.environ, find_home(home, os.environ).ready)
