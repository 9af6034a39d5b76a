"""`cortex up`."""

import os
import time
from typing import Annotated

import typer

from cortex_cli.commands.options import HomeOption
from cortex_cli.output import console
from cortex_cli.stack.home import find_home
from cortex_cli.stack.up import up as run_stack
from cortex_cli.stack.view import View

app = typer.Typer()


@app.command(
    epilog="Examples: `cortex up` · `cortex up --no-demo --home /srv/cortex` · `CORTEX_GATEWAY_PORT=9080 cortex up`"
)
def up(
    home: HomeOption = None,
    no_demo: Annotated[bool, typer.Option("--no-demo", help="Do not deploy the demo model.")] = False,
) -> None:
    """Start everything here and stay in the foreground; Ctrl-C stops it all, engines included.

    Ports: CORTEX_GATEWAY_PORT (8080) and CORTEX_REGISTRY_PORT (8081). CORTEX_DATABASE_URL names a PostgreSQL to use
    instead of an own one, CORTEX_MODELS_DIR another models folder.
    """
    view = View(console(), time.monotonic())
    run_stack(find_home(home, os.environ), view, with_demo=not no_demo, environ=os.environ)
