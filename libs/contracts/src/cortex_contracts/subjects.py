"""Subjects as data, built by functions; ids travel in payloads, never in event subjects."""

from cortex_contracts.base import NodeId

EVENT_SUBJECTS = ("model.>", "key.>", "container.>", "placement.>", "node.>", "upstream.>", "gguf.>")
USAGE_SUBJECTS = ("usage.>",)
DLQ_SUBJECTS = ("dlq.>",)
MAX_DELIVERIES_SUBJECTS = ("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",)

RPC_GGUF_INSPECT = "rpc.gguf.inspect"


def rpc_logs(node: NodeId) -> str:
    """Request-reply subject of the orchestrator that owns the engines of one node."""
    return f"rpc.orchestrator.logs.{node}"


def dead_letter(consumer: str) -> str:
    """Where messages go that `consumer` can never handle."""
    return f"dlq.{consumer}"
