"""How states look: a tone (which the theme colours) and a word. Never the colour alone."""

from enum import StrEnum


class Tone(StrEnum):
    """What a colour says; `theme.py` has the colours of both themes."""

    NEUTRAL = "neutral"
    GOOD = "good"
    BUSY = "busy"
    WARN = "warn"
    BAD = "bad"


_MODEL = {
    "running": Tone.GOOD,
    "degraded": Tone.WARN,
    "failed": Tone.BAD,
    "pulling": Tone.BUSY,
    "starting": Tone.BUSY,
    "loading": Tone.BUSY,
    "stopping": Tone.BUSY,
    "stopped": Tone.NEUTRAL,
    "archived": Tone.NEUTRAL,
}
_VERDICT = {"healthy": Tone.GOOD, "unhealthy": Tone.BAD, "loading": Tone.BUSY}
_REPLICA = {
    "pulling": Tone.BUSY,
    "starting": Tone.BUSY,
    "started": Tone.GOOD,
    "draining": Tone.BUSY,
    "stopped": Tone.NEUTRAL,
    "failed": Tone.BAD,
}
ENGINES = {"llamacpp": "llama.cpp", "vllm": "vLLM"}
TASKS = {"generate": "Chat", "embed": "Embeddings", "rerank": "Rerank"}


def model_tone(state: str | None) -> Tone:
    """Of a model's observed state."""
    return _MODEL.get(state or "", Tone.NEUTRAL)


def verdict_tone(verdict: str | None) -> Tone:
    """Of a health verdict."""
    return _VERDICT.get(verdict or "", Tone.NEUTRAL)


def replica_tone(state: str | None) -> Tone:
    """Of a replica's state."""
    return _REPLICA.get(state or "", Tone.NEUTRAL)


def engine_name(engine: str) -> str:
    """As its makers write it."""
    return ENGINES.get(engine, engine)


def task_name(task: str) -> str:
    """What people do with it."""
    return TASKS.get(task, task)
