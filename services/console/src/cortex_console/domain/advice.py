"""What to do next about an error, by its code."""

_STEPS = {
    "registry_unavailable": "Wait a moment; the page goes on by itself.",
    "database_unavailable": "The database is away. Wait a moment, then try again.",
    "inspector_unavailable": "The service that reads model files is away. Try again in a moment.",
    "orchestrator_unavailable": "No orchestrator answers. See System.",
    "health_unavailable": "The health service is away. Try again in a moment.",
    "forbidden": "Ask an administrator for it.",
    "csrf_failed": "Reload the page and try again.",
    "conflict": "Somebody else changed it. Reload and try again.",
    "precondition_failed": "Somebody else changed it meanwhile. Reload, then change it again.",
    "name_taken": "Choose another name.",
    "model_not_found": "It was deleted, perhaps by somebody else.",
    "model_archived": "Bring it back from the archive first.",
    "too_many_attempts": "Wait, then try again.",
    "gateway_unavailable": "See System for the state of the services.",
    "playground_key_refused": "Wait a moment, then ask again. See System if it stays.",
    "self_service_off": "Ask an administrator for a key.",
    "too_many_keys": "Revoke one that is not needed under API keys.",
    "key_not_active": "Make a new key instead.",
    "already_rotated": "Its successor is in the list.",
    "chat_too_large": "It goes on here, but is not kept. Begin a new conversation.",
    "too_many_chats": "It goes on here, but is not kept. Delete older conversations.",
    "export_busy": "Other exports are running. Try again in a moment.",
    "usage_query_timeout": "Take a shorter period, or fewer dimensions.",
    "window_too_long": "Take a shorter period.",
    "context_length_exceeded": "Begin a new conversation, or start the model with a larger context.",
    "rate_limit_exceeded": "Wait a minute. An administrator can raise the limits of your keys.",
    "insufficient_quota": "The budget of this month is used up. Ask an administrator.",
    "model_overloaded": "It is busy. Wait a moment, or start more replicas.",
    "deadline_exceeded": "It took too long. Ask for a shorter answer, or raise the model's request timeout.",
    "stream_broken": "Ask again. See the model's page if it happens again.",
}


def next_step(code: str, status: int) -> str:
    """A sentence for whoever sees the error."""
    known = _STEPS.get(code)
    if known is not None:
        return known
    if status == 0 or status >= 500:
        return "Try again in a moment."
    return "Correct it and try again." if status == 422 else "Reload the page if this is unexpected."
