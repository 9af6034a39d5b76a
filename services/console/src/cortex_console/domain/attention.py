"""What somebody should look at now, and what to do first on a fresh installation."""

from collections.abc import Sequence
from dataclasses import dataclass

from cortex_console.domain.models import RUNS, ModelSummary
from cortex_console.domain.states import Tone

MOST = 5


@dataclass(frozen=True, slots=True)
class Notice:
    """One line that asks for attention."""

    tone: Tone
    words: str
    link: str
    link_words: str


@dataclass(frozen=True, slots=True)
class FirstStep:
    """One step on the way to the first answer."""

    done: bool
    title: str
    text: str
    link: str
    link_words: str


def notices(models: Sequence[ModelSummary], hosts: int, unhealthy: int) -> list[Notice]:
    """The gravest first; at most MOST models are named."""
    made: list[Notice] = []
    if not hosts:
        made.append(Notice(Tone.BAD, "No host runs engines: no orchestrator has told of itself.", "/system", "System"))
    troubled = [model for model in models if model.state in ("failed", "degraded")]
    troubled.sort(key=lambda model: (model.state != "failed", model.name.lower()))
    for model in troubled[:MOST]:
        failed = model.state == "failed"
        verb = "failed" if failed else "is degraded"
        words = f"{model.name} {verb}: {model.reason}" if model.reason else f"{model.name} {verb}."
        made.append(Notice(Tone.BAD if failed else Tone.WARN, words, f"/models/{model.id}", "Why, and what to do"))
    if len(troubled) > MOST:
        made.append(Notice(Tone.WARN, f"{len(troubled) - MOST} more models are in trouble.", "/models", "Models"))
    if unhealthy and not troubled:
        words = f"{unhealthy} engine does not answer." if unhealthy == 1 else f"{unhealthy} engines do not answer."
        made.append(Notice(Tone.WARN, words, "/health", "Health"))
    return made


def first_steps(models: Sequence[ModelSummary], *, asked: bool) -> list[FirstStep]:
    """What is left to do until the first answer; nothing once it was given."""
    runs = any(model.state in RUNS for model in models)
    if asked and models:
        return []
    return [
        FirstStep(
            bool(models), "Make a model", "Of a GGUF file or a folder in the models folder.", "/models/new", "New model"
        ),
        FirstStep(runs, "Start it", "Loading takes from seconds to minutes.", "/models", "Models"),
        FirstStep(
            asked, "Ask it something", "Here in the browser, before any program does.", "/playground", "Playground"
        ),
    ]
