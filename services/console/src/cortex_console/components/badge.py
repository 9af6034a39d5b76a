"""Small labels: a state with its dot, an engine, a count."""

from cortex_console.components.text import Text, box
from cortex_console.domain.states import Tone, engine_name, model_tone


def badge(text: str, tone: Tone = Tone.NEUTRAL, *, dot: bool = True) -> Text:
    """A state in words and colour."""
    return Text("span", text, f"c-badge c-{tone.value}{' c-dot' if dot else ''}")


def state_badge(state: str | None) -> Text:
    """Of a model."""
    return badge(state or "unknown", model_tone(state))


def engine_badge(engine: str) -> Text:
    """vLLM or llama.cpp."""
    return Text("span", engine_name(engine), f"c-tag c-tag-{engine}")


def tag(text: str) -> Text:
    """A neutral label."""
    return Text("span", text, "c-tag")


def stat(label: str, value: str, note: str = "") -> None:
    """A figure that matters."""
    with box("c-stat"):
        Text("div", label, "c-stat-label")
        Text("div", value, "c-stat-value")
        if note:
            Text("div", note, "c-stat-note")
