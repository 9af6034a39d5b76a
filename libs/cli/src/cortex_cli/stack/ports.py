"""Ports: three that users know, the others free ones that are kept from run to run."""

import json
import random
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil

from cortex_cli.errors import CliError, ExitCode, StackError
from cortex_cli.shapes import parse_object
from cortex_cli.stack.files import write_private

LOOPBACK = "127.0.0.1"
_CANDIDATES = range(20000, 30000)
"""Below the ports the system gives to outgoing connections: one of those could take ours while a process restarts."""


def is_free(port: int) -> bool:
    """Whether a server can listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def assign(
    names: Iterable[str],
    remembered: Mapping[str, int],
    *,
    reserved: Iterable[int] = (),
    free: Callable[[int], bool] = is_free,
    candidates: Iterable[int] | None = None,
) -> dict[str, int]:
    """A port for each name: the remembered one when it is free, else a new one; never one of `reserved`.

    Raises:
        StackError: there is no free port.
    """
    used = set(reserved)
    pool = iter(candidates if candidates is not None else random.sample(_CANDIDATES, len(_CANDIDATES)))
    assigned: dict[str, int] = {}
    for name in names:
        known = remembered.get(name)
        port = known if known is not None and known not in used and free(known) else None
        if port is None:
            port = next((candidate for candidate in pool if candidate not in used and free(candidate)), None)
        if port is None:
            raise StackError("There is no free port between 20000 and 30000 on 127.0.0.1.")
        used.add(port)
        assigned[name] = port
    return assigned


def remember(path: Path, ports: Mapping[str, int]) -> None:
    """Keep the ports for the next run and for `cortex status`."""
    write_private(path, json.dumps(dict(ports), indent=1))


def recall(path: Path) -> dict[str, int]:
    """The ports of the last run; empty when there was none or the file is damaged."""
    try:
        known = parse_object(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    return {name: port for name, port in known.items() if isinstance(port, int) and 0 < port < 65536}


def public_port(environ: Mapping[str, str], variable: str, default: int) -> int:
    """The port a user chose by environment variable.

    Raises:
        CliError: it is not a port number.
    """
    text = environ.get(variable) or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise CliError(f"{variable}={text} is not a port number (1 to 65535).", exit_code=ExitCode.USAGE)
    return int(text)


def require_free(ports: Mapping[str, int]) -> None:
    """Check the ports users know, by the variable that sets each.

    Raises:
        StackError: one is taken, or two are the same; names the port, the variable and, where visible, the holder.
    """
    if len(set(ports.values())) < len(ports):
        raise StackError(f"{' and '.join(ports)} name the same port.", fix="give each its own")
    for variable, port in ports.items():
        if not is_free(port):
            raise StackError(
                f"Port {port} on {LOOPBACK} is taken{_held_by(port)}.",
                fix=f"stop that program, or choose another port: {variable}={port + 1000} cortex up",
            )


def _held_by(port: int) -> str:
    try:
        pids = [
            item.pid
            for item in psutil.net_connections("tcp")
            if item.status == psutil.CONN_LISTEN and item.laddr and item.laddr.port == port and item.pid
        ]
        return f" by {psutil.Process(pids[0]).name()} (process {pids[0]})" if pids else ""
    except (psutil.Error, OSError):
        return ""
