"""`cortex down`."""

import os
from typing import Annotated

import typer

from cortex_cli.commands.options import HomeOption
from cortex_cli.errors import not_running
from cortex_cli.stack.down import down as stop_stack
from cortex_cli.stack.home import find_home

app = typer.Typer()


@app.command(epilog="Examples: `cortex down` · `cortex down --home /srv/cortex`")
def down(
    home: HomeOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the end.", min=1)] = 120.0,
) -> None:
    """Stop the Cortex that runs on this home and wait until it is gone, engines included."""
    ended = stop_stack(find_home(home, os.environ), timeout=timeout, environ=os.environ)
    if not ended:
        raise not_running()
    print(f"stopped: {', '.join(ended)}")
