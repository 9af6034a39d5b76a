"""The `cortex` command. Each sub-command's module is loaded only when it is called: `cortex up` must be quick."""

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import print_error
from cortex_cli.profile_option import add_profile_option

_COMMANDS = (
    "up",
    "down",
    "status",
    "doctor",
    "login",
    "logout",
    "whoami",
    "profile",
    "model",
    "recipe",
    "upstream",
    "key",
    "usage",
    "chat",
    "events",
    "webhook",
    "audit",
    "backup",
    "system",
    "gguf",
    "user",
    "org",
    "token",
)
"""In the order of the help page."""
_MODULES: Mapping[str, str] = {name: f"cortex_cli.commands.{name}" for name in _COMMANDS}

HELP = """Serve your own large language models behind one OpenAI-compatible address."""

EPILOG = """Examples: `cortex up` · `cortex model create my-model --engine llamacpp --local-path my.gguf` ·
`cortex model start my-model` · `cortex chat my-model "Hello"`

Exit codes: 0 done · 1 refused or failed · 2 wrong usage · 3 Cortex does not run here · 130 interrupted

Which Cortex a command talks to, the first that is given: a named profile (`--profile NAME` or CORTEX_PROFILE; see
`cortex login`) · CORTEX_REGISTRY_URL with CORTEX_ADMIN_TOKEN, CORTEX_GATEWAY_URL with CORTEX_API_KEY, CORTEX_NATS_URL ·
the current profile (`cortex profile use NAME`) · the one that runs here ($CORTEX_HOME/ready.json, written by `cortex up`)

Completion of commands and profiles: `cortex --install-completion`"""


class LazyGroup(TyperGroup):
    """Finds sub-commands by name and imports their module then."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every command, in the order of the help page."""
        return list(_MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and build one command; None when there is no such command. (Typer keeps its command type to itself.)"""
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        command = typer.main.get_command(importlib.import_module(module).app)
        command.name = cmd_name
        add_profile_option(command)
        return command


app = typer.Typer(
    cls=LazyGroup,
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Everything is in the sub-commands."""


def main() -> int:
    """Run the command; returns its exit code."""
    try:
        result: object = app(standalone_mode=True)
    except CliError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # e.g. `cortex events | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    return result if isinstance(result, int) else ExitCode.OK
