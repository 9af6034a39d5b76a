"""Subjects as data, built by functions; ids travel in payloads, never in event subjects."""

from cortex_contracts.base import NodeId

EVENT_SUBJECTS = (
    "model.>",
    "key.>",
    "org.>",
    "user.>",
    "recipe.>",
    "webhook.>",
    "container.>",
    "placement.>",
    "node.>",
    "upstream.>",
    "gguf.>",
)
USAGE_SUBJECTS = ("usage.>",)
DLQ_SUBJECTS = ("dlq.>",)
MAX_DELIVERIES_SUBJECTS = ("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",)

RPC_GGUF_INSPECT = "rpc.gguf.inspect"
RPC_GGUF_ESTIMATE = "rpc.gguf.estimate"
RPC_GGUF_RECOMMEND = "rpc.gguf.recommend"
RPC_GGUF_SCAN = "rpc.gguf.scan"
RPC_GGUF_MERGE = "rpc.gguf.merge"
RPC_GGUF_VERIFY = "rpc.gguf.verify"
RPC_ORCHESTRATOR_DRY_RUN = "rpc.orchestrator.dry-run"
RPC_HEALTH_TEST = "rpc.health.test"
RPC_HEALTH_PROBE = "rpc.health.probe"
RPC_GATEWAY_CANCEL = "rpc.gateway.cancel"


def rpc_logs(node: NodeId) -> str:
    """Request-reply subject of the orchestrator that owns the engines of one node."""
    return f"rpc.orchestrator.logs.{node}"


def rpc_logs_follow(node: NodeId) -> str:
    """Starts a live copy of an engine's output on the caller's own inbox (operations.LogsFollowRequestV1)."""
    return f"rpc.orchestrator.logs-follow.{node}"


def rpc_examine(node: NodeId) -> str:
    """Request-reply subject that examines one node (doctor.ExamineRequestV1)."""
    return f"rpc.orchestrator.examine.{node}"


def dead_letter(consumer: str) -> str:
    """Where messages go that `consumer` can never handle."""
    return f"dlq.{consumer}"
