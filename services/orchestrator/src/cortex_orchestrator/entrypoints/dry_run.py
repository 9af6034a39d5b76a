"""Request-reply endpoint of dry runs."""

from faststream.nats import NatsBroker

from cortex_contracts.operations import DryRunRequestV1, DryRunResultV1
from cortex_contracts.rpc import RpcError, RpcReply
from cortex_contracts.subjects import RPC_ORCHESTRATOR_DRY_RUN
from cortex_kit.errors import DomainError, TransientError
from cortex_orchestrator.handlers.dry_run import DryRuns


def bind_dry_runs(broker: NatsBroker, dry_runs: DryRuns) -> None:
    """Answer dry runs; one of all orchestrators gets each request."""

    @broker.subscriber(RPC_ORCHESTRATOR_DRY_RUN, queue="orchestrator")
    async def dry_run(request: DryRunRequestV1) -> RpcReply[DryRunResultV1]:
        try:
            return RpcReply[DryRunResultV1](result=await dry_runs.run(request))
        except DomainError as error:
            return RpcReply[DryRunResultV1](error=RpcError(code=error.code, message=error.message))
        except TransientError as error:
            return RpcReply[DryRunResultV1](error=RpcError(code="runtime_unreachable", message=str(error)))

    _ = dry_run
