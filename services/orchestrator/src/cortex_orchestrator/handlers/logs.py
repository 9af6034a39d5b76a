"""Logs of an engine on request."""

from collections.abc import Sequence

from cortex_contracts.base import replica_id
from cortex_contracts.rpc import LogsRequestV1, LogsResultV1
from cortex_kit.errors import DomainError
from cortex_orchestrator.ports import EngineRuntime

LINE_CHARACTERS = 4000
REPLY_BYTES = 256 * 1024
"""Far below the 1 MB that a NATS message may have, with room for JSON's escapes."""


async def read_logs(runtime: EngineRuntime, request: LogsRequestV1) -> LogsResultV1:
    """The last lines of one replica's output, also of one that has ended and was not replaced yet.

    Raises:
        DomainError: this node has no such replica.
        TransientError: the runtime is unreachable.
    """
    wanted = replica_id(request.model_id, request.ordinal)
    if not any(seen.replica_id == wanted for seen in await runtime.list_owned()):
        raise DomainError("replica_not_found", f"this node has no engine for replica {wanted}", status=404)
    return LogsResultV1(lines=_bounded(await runtime.logs(wanted, request.tail)))


def _bounded(lines: Sequence[str]) -> tuple[str, ...]:
    """The newest lines that fit into one message."""
    kept: list[str] = []
    size = 0
    for line in reversed(lines):
        short = line[:LINE_CHARACTERS]
        size += len(short.encode()) + 8
        if size > REPLY_BYTES:
            break
        kept.append(short)
    return tuple(reversed(kept))
