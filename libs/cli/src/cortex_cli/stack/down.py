"""`cortex down`: ends the stack of a home from outside."""

import asyncio
import os
import signal
import time
from collections.abc import Mapping

from cortex_cli.errors import CliError, StackError
from cortex_cli.stack import lock
from cortex_cli.stack.home import Home
from cortex_cli.stack.leftovers import end_leftovers
from cortex_cli.stack.oneshot import stop_engines_of

_POLL_S = 0.1


def down(home: Home, *, timeout: float, environ: Mapping[str, str]) -> list[str]:
    """Ask the running `cortex up` to stop and wait until it is gone; end what a killed one left, engines included.

    Returns what was ended; empty when nothing ran.

    Raises:
        CliError: it does not end in time.
    """
    if not home.root.exists():
        return []
    ended = _stop_supervisor(home, timeout)
    with lock.hold(home.lock):
        leftovers = asyncio.run(end_leftovers(home))
        if leftovers:
            asyncio.run(stop_engines_of(home, environ))
    return ended + leftovers


def _stop_supervisor(home: Home, timeout: float) -> list[str]:
    pid = lock.holder(home.lock)
    if pid is None:
        return []
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise CliError(f"Process {pid} belongs to another user.", fix="run `cortex down` as that user") from error
    deadline = time.monotonic() + timeout
    while lock.holder(home.lock) is not None:
        if time.monotonic() > deadline:
            raise StackError(f"Process {pid} still stops after {timeout:.0f} s.", fix="run `cortex down` once more")
        time.sleep(_POLL_S)
    return [f"cortex up (process {pid})"]
