"""Subjects as data, built by functions; ids travel in payloads, never in event subjects."""

from cortex_contracts.base import KeyId, NodeId

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
LIMIT_SUBJECTS = ("rl.>",)
BUDGET_SUBJECTS = ("budget.>",)
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


def request_counter(key: KeyId) -> str:
    """Requests of a key; what it had a minute ago tells the rate."""
    return f"rl.{key}.requests"


def token_counter(key: KeyId) -> str:
    """Tokens of a key, reserved and then settled."""
    return f"rl.{key}.tokens"


def stream_counter(key: KeyId, epoch: int) -> str:
    """Open streams of a key, as each gateway registers its own in each epoch."""
    return f"rl.{key}.streams.{epoch}"


def gateway_counter(epoch: int) -> str:
    """Gateways that were there in an epoch."""
    return f"rl.gateways.{epoch}"


def budget_counter(key: KeyId, month: str) -> str:
    """Tokens of a key in a calendar month (UTC), like 202611."""
    return f"budget.{key}.{month}"


def rpc_logs(node: NodeId) -> str:
    """Request-reply subject of the orchestrator that owns the engines of one node."""
    return f"rpc.orchestrator.logs.{node}"


def rpc_logs_follow(node: NodeId) -> str:
    """Starts a live copy of an engine's output on the caller's own inbox (operations.LogsFollowRequestV1)."""
    return f"rpc.orchestrator.logs-follow.{node}"


def rpc_examine(node: NodeId) -> str:
    """Request-reply subject that examines one node (doctor.ExamineRequestV1)."""
    return f"rpc.orchestrator.examine.{node}"


def rpc_images(node: NodeId) -> str:
    """Request-reply subject that lists one node's engine images (images.ImagesRequestV1)."""
    return f"rpc.orchestrator.images.{node}"


def dead_letter(consumer: str) -> str:
    """Where messages go that `consumer` can never handle."""
    return f"dlq.{consumer}"
