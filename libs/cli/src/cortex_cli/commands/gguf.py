"""`cortex gguf ...`."""

from pathlib import Path
from typing import Annotated

import typer

from cortex_cli.commands import gguf_estimate, gguf_files
from cortex_cli.commands.gguf_facts import facts
from cortex_cli.commands.options import JsonOption
from cortex_cli.errors import CliError
from cortex_cli.output import console, details, print_json
from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.inspect import inspect_file

app = typer.Typer(no_args_is_help=True, help="Look into GGUF files; needs no running Cortex.")
gguf_files.register(app)
gguf_estimate.register(app)


@app.command(epilog="Examples: `cortex gguf inspect model.gguf` · `cortex gguf inspect folder --json`")
def inspect(
    path: Annotated[Path, typer.Argument(help="File, or folder with one model.")], as_json: JsonOption = False
) -> None:
    """Show what the header of a GGUF file says, or why it cannot be served."""
    try:
        result = inspect_file(path)
    except GgufError as error:
        raise CliError(error.message, code=error.code) from error
    shown = result.gguf.model_dump(mode="json", exclude={"aggregateversion"})
    if as_json:
        print_json(shown)
    else:
        console().print(details(facts(result.gguf)))
