"""How every process of the stack is started."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged account to run as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process runs as and what it inherits.

    Args:
        account: None runs it as ourselves.
        pass_fds: descriptors of ours that it inherits under the same numbers.
    """

    account: Account | None = None
    pass_fds: tuple[int, ...] = ()


AS_OURSELVES = Identity()


async def launch(
    argv: Sequence[str], *, env: Mapping[str, str], log: Path, identity: Identity
) -> asyncio.subprocess.Process:
    """Start a process in its own session, its output appended to `log`.

    Its own session, because Ctrl-C in the terminal is for the supervisor alone.

    Raises:
        OSError: it cannot be started.
    """
    account = identity.account
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(env),
            cwd="/",
            start_new_session=True,
            pass_fds=identity.pass_fds,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )


async def run_to_end(process: asyncio.subprocess.Process, timeout: float) -> int | None:
    """Wait for a process that ends by itself; its exit code, or None when it was killed at the deadline."""
    try:
        return await asyncio.wait_for(process.wait(), timeout)
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
