"""Logs of an engine on request."""

from cortex_contracts.base import replica_id
from cortex_contracts.rpc import LogsRequestV1, LogsResultV1
from cortex_kit.errors import DomainError
from cortex_orchestrator.ports import EngineRuntime


async def read_logs(runtime: EngineRuntime, request: LogsRequestV1) -> LogsResultV1:
    """The last lines of one replica's output, also of one that has ended and was not replaced yet.

    Raises:
        DomainError: this node has no such replica.
        TransientError: the runtime is unreachable.
    """
    wanted = replica_id(request.model_id, request.ordinal)
    if not any(seen.replica_id == wanted for seen in await runtime.list_owned()):
        raise DomainError("replica_not_found", f"this node has no engine for replica {wanted}", status=404)
    return LogsResultV1(lines=tuple(await runtime.logs(wanted, request.tail)))
