"""Errors the command shows as one line, and its exit codes."""

from enum import IntEnum

from cortex_kit.errors import CortexError


class ExitCode(IntEnum):
    """What the shell sees. `cortex --help` and the README list them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    INTERRUPTED = 130


class CliError(CortexError):
    """Ends the command with one clear line, what to do next, and an exit code."""

    def __init__(self, message: str, *, fix: str = "", code: str = "", exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.code = code
        self.exit_code = exit_code


class StackError(CliError):
    """The embedded stack cannot start or stay up."""


def not_running(address: str = "") -> CliError:
    """The error for a refused connection or a missing ready file."""
    where = f" ({address} refuses connections)" if address else ""
    return CliError(
        f"Cortex does not run here{where}: start it with `cortex up`.",
        exit_code=ExitCode.NOT_RUNNING,
    )
