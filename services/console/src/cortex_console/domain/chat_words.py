"""What an answer cost, in words."""

from cortex_console.domain.chat import Turn
from cortex_console.domain.formatting import duration_text


def cost_text(turn: Turn, context: int | None) -> str:
    """`42.1 tok/s · first token 180 ms · 128 tokens in 3.2 s · context 345 of 8,192 (4 %)`."""
    parts: list[str] = []
    if turn.stopped:
        parts.append("Stopped")
    if turn.tokens_per_second is not None:
        parts.append(f"{turn.tokens_per_second:.1f} tok/s")
    if turn.ttft_ms is not None:
        parts.append(f"first token {duration_text(turn.ttft_ms / 1000)}")
    if turn.completion_tokens is not None and turn.duration_ms is not None:
        parts.append(f"{turn.completion_tokens:,} tokens in {duration_text(turn.duration_ms / 1000)}")
    if turn.prompt_tokens is not None:
        parts.append(context_text(turn.prompt_tokens + (turn.completion_tokens or 0), context))
    return " · ".join(parts)


def context_text(used: int, context: int | None) -> str:
    """How full the context is."""
    if not context:
        return f"context {used:,} tokens"
    return f"context {used:,} of {context:,} ({used / context:.0%})"
