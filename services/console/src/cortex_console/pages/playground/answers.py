"""An answer on the screen, while it comes and afterwards."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cortex_console.adapters.playground_gateway import PlaygroundGateway
from cortex_console.components.markdown import Markdown
from cortex_console.components.secret import copy_button
from cortex_console.components.text import Text, box
from cortex_console.domain.advice import next_step
from cortex_console.domain.chat import Turn, chat_body, delta_of, finished
from cortex_console.domain.chat_words import cost_text
from cortex_console.errors import ConsoleError

_DRAW_EVERY_S = 0.08
_CHARACTERS_PER_S = 60_000
"""A long text is drawn less often, so that a browser keeps up."""


class AnswerView:
    """One answer; `turn` is what there is of it."""

    def __init__(self, turn: Turn, context: int | None) -> None:
        self.turn = turn
        self._context = context
        self._thought = ""
        self._drawn = 0.0
        with box("pg-answer", "article"):
            if turn.model:
                Text("div", turn.model, "pg-answer-model")
            self._think = Text("p", "", "pg-thought")
            self._think.visible = False
            self._text = Markdown(turn.text)
            self._error = Text("p", turn.error, "c-form-error")
            self._error.visible = bool(turn.error)
            with box("pg-answer-foot"):
                self._cost = Text("span", cost_text(turn, context), "c-hint pg-cost")
                self._copy = box("pg-answer-copy")
        self._offer_copy()

    async def receive(
        self, gateway: PlaygroundGateway, messages: list[dict[str, str]], given: Mapping[str, Any]
    ) -> None:
        """Ask, and draw what comes until it ends, fails or is cancelled; `turn` holds it then."""
        begun, first = time.monotonic(), None
        self._cost.text = "Waiting for the first token…"
        try:
            async with gateway.stream("/chat/completions", chat_body(self.turn.model, messages, given)) as events:
                async for data in events:
                    if self._add(data) and first is None:
                        first = time.monotonic()
        except ConsoleError as error:
            told = f"{error.message} {error.code} · {next_step(error.code, error.status)}"
            self.turn = replace(self.turn, error=told[:2000])
        except asyncio.CancelledError:
            self.turn = replace(self.turn, stopped=True)
            raise
        finally:
            ttft_ms = None if first is None else (first - begun) * 1000
            self.turn = finished(self.turn, ttft_ms=ttft_ms, duration_ms=(time.monotonic() - begun) * 1000)
            self._settle()

    def _add(self, data: str) -> bool:
        delta = delta_of(data)
        turn = self.turn
        self._thought += delta.thought
        self.turn = replace(
            turn,
            text=turn.text + delta.text,
            error=delta.error or turn.error,
            prompt_tokens=turn.prompt_tokens if delta.prompt_tokens is None else delta.prompt_tokens,
            completion_tokens=turn.completion_tokens if delta.completion_tokens is None else delta.completion_tokens,
        )
        self._draw()
        return bool(delta.text or delta.thought)

    def watch(self, turn: Turn) -> None:
        """What there is of it now, while another page receives it."""
        if turn != self.turn:
            self.turn = turn
            self._cost.text = "Answering…" if turn.text else "Waiting for the first token…"
            self._text.show(turn.text, growing=True)

    def _draw(self) -> None:
        now = time.monotonic()
        if self._cost.is_deleted or now - self._drawn < max(_DRAW_EVERY_S, len(self.turn.text) / _CHARACTERS_PER_S):
            return
        self._drawn = now
        self._cost.text = "Answering…" if self.turn.text else "Thinking…" if self._thought else self._cost.text
        self._show_thought()
        self._text.show(self.turn.text, growing=True)

    def _settle(self) -> None:
        if self._cost.is_deleted:
            return
        self._show_thought()
        self._text.show(self.turn.text)
        self._error.text, self._error.visible = self.turn.error, bool(self.turn.error)
        self._cost.text = cost_text(self.turn, self._context)
        self._offer_copy()

    def _show_thought(self) -> None:
        self._think.text, self._think.visible = self._thought[-4000:], bool(self._thought)

    def _offer_copy(self) -> None:
        self._copy.clear()
        if self.turn.text:
            with self._copy:
                copy_button(self.turn.text, kind="quiet")
