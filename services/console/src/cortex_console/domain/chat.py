"""Conversations of the playground: what is kept, what is sent, what comes back."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from cortex_console.domain.shapes import Row, number, row, rows, text, whole

MAX_TITLE = 60
PARAMETERS = ("temperature", "top_p", "max_tokens", "presence_penalty", "frequency_penalty", "seed")


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said, and what it cost."""

    role: str
    text: str
    side: int = 0
    model: str = ""
    error: str = ""
    stopped: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_ms: float | None = None
    duration_ms: float | None = None

    @classmethod
    def of(cls, stored: Row) -> Self:
        """Read a message of a stored conversation."""
        return cls(
            role=text(stored.get("role")),
            text=text(stored.get("text")),
            side=whole(stored.get("side")),
            model=text(stored.get("model")),
            error=text(stored.get("error")),
            stopped=bool(stored.get("stopped")),
            prompt_tokens=_count(stored.get("prompt_tokens")),
            completion_tokens=_count(stored.get("completion_tokens")),
            ttft_ms=number(stored.get("ttft_ms")),
            duration_ms=number(stored.get("duration_ms")),
        )

    def stored(self) -> dict[str, Any]:
        """As the registry keeps it; what says nothing is left out."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in fields.items() if name in ("role", "text") or value not in ("", None, 0)}

    @property
    def tokens_per_second(self) -> float | None:
        """Of the answer, from its first token to its last."""
        if not self.completion_tokens or self.duration_ms is None or self.ttft_ms is None:
            return None
        writing_s = (self.duration_ms - self.ttft_ms) / 1000
        return (self.completion_tokens - 1) / writing_s if writing_s > 0 and self.completion_tokens > 1 else None


@dataclass(slots=True)
class Conversation:
    """One of a user's, open in a browser."""

    id: str
    title: str = ""
    version: int | None = None
    """The stored one; None: it was not stored yet."""
    models: list[str] = field(default_factory=list[str])
    system: str = ""
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    turns: list[Turn] = field(default_factory=list[Turn])

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read `GET /admin/me/chats/{id}`."""
        content = row(answer.get("content"))
        parameters = {name: value for name, value in row(content.get("parameters")).items() if value not in (None, [])}
        return cls(
            id=text(answer.get("id")),
            title=text(answer.get("title")),
            version=whole(answer.get("version")),
            models=[str(name) for name in content.get("models") or ()],
            system=text(content.get("system")),
            parameters=parameters,
            turns=[Turn.of(one) for one in rows(content.get("messages"))],
        )

    def stored(self) -> dict[str, Any]:
        """The body of `PUT /admin/me/chats/{id}`."""
        return {
            "title": self.title or "New conversation",
            "models": self.models,
            "system": self.system,
            "parameters": self.parameters,
            "messages": [turn.stored() for turn in self.turns],
        }

    def sent(self, side: int) -> list[dict[str, str]]:
        """The messages that the model of one side is asked with: its own answers alone, failed questions left out."""
        messages = [{"role": "system", "content": self.system}] if self.system.strip() else []
        for turn in self.turns:
            if turn.role == "user":
                if messages and messages[-1]["role"] == "user":
                    messages.pop()  # it was never answered, and two in a row are refused by some templates
                messages.append({"role": "user", "content": turn.text})
            elif turn.side == side and turn.text:
                messages.append({"role": "assistant", "content": turn.text})
        return messages

    def goes_on(self, stored: "Conversation") -> bool:
        """Whether all that was said there was said here, too."""
        return self.turns[: len(stored.turns)] == stored.turns

    def become_another(self, new_id: str, *, copy: bool) -> None:
        """Part from the stored one; a copy is told from it by its title."""
        self.id, self.version = new_id, None
        self.title = next_title(self.title) if copy else self.title

    def context_used(self, side: int) -> int | None:
        """Tokens of the last answer's prompt and answer: what the next question finds in the context."""
        for turn in reversed(self.turns):
            if turn.role == "assistant" and turn.side == side and turn.prompt_tokens is not None:
                return turn.prompt_tokens + (turn.completion_tokens or 0)
        return None


@dataclass(frozen=True, slots=True)
class ChatSummary:
    """A conversation in the list."""

    id: str
    title: str
    updated_at: str

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one item of `GET /admin/me/chats`."""
        return cls(text(answer.get("id")), text(answer.get("title")), text(answer.get("updated_at")))


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event of a stream adds."""

    text: str = ""
    thought: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str = ""


def chat_body(model: str, messages: Sequence[Mapping[str, str]], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The body of /v1/chat/completions; parameters that were left open are left out."""
    given = {name: value for name, value in parameters.items() if value not in (None, "", [])}
    return {
        "model": model,
        "messages": list(messages),
        **given,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def delta_of(data: str) -> Delta:
    """Read one event; what cannot be read adds nothing."""
    try:
        event = row(json.loads(data))
    except ValueError:
        return Delta()
    error = row(event.get("error"))
    if error:
        return Delta(error=text(error.get("message"), "The answer broke off."))
    usage = row(event.get("usage"))
    choices = rows(event.get("choices"))
    delta = row(choices[0].get("delta")) if choices else row(None)
    return Delta(
        text=text(delta.get("content")),
        thought=text(delta.get("reasoning_content") or delta.get("reasoning")),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def title_of(question: str) -> str:
    """A name for a conversation from what was asked first."""
    line = " ".join(question.split())
    return line if len(line) <= MAX_TITLE else line[: MAX_TITLE - 1].rstrip() + "…"


def next_title(title: str) -> str:
    """Of what goes on beside the one with this title."""
    numbered = re.fullmatch(r"(.*) \((\d+)\)", title)
    return f"{numbered[1]} ({int(numbered[2]) + 1})" if numbered else f"{title} (2)"


def parameters_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was set, whole numbers as such."""
    found: dict[str, Any] = {}
    for name in PARAMETERS:
        value = given.get(name)
        if value in (None, ""):
            continue
        found[name] = int(value) if name in ("max_tokens", "seed") else float(value)
    return found


def without_last_answer(turns: Iterable[Turn]) -> list[Turn]:
    """Up to the last question, which is asked again."""
    kept = list(turns)
    while kept and kept[-1].role == "assistant":
        kept.pop()
    return kept


def finished(turn: Turn, *, ttft_ms: float | None, duration_ms: float) -> Turn:
    """With its times, a tenth of a millisecond exact."""
    return replace(turn, ttft_ms=None if ttft_ms is None else round(ttft_ms, 1), duration_ms=round(duration_ms, 1))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
