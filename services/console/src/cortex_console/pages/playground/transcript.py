"""What was said, below each other; answers of two models beside each other."""

from collections.abc import Mapping, Sequence

from cortex_console.components.text import Text, box, labelled
from cortex_console.domain.chat import Turn
from cortex_console.pages.playground.answers import AnswerView


class Transcript:
    """Stays at its end while it grows, unless one has scrolled up (the order of its column is reversed for that)."""

    def __init__(self) -> None:
        self.element = box("pg-log").props('tabindex="0" role="log"')
        labelled(self.element, "Conversation")
        with self.element:
            self._turns = box("pg-turns")
        self.element.visible = False

    def show(self, turns: Sequence[Turn], contexts: Mapping[str, int | None]) -> None:
        """Draw these instead."""
        self._turns.clear()
        answers: list[Turn] = []
        for turn in turns:
            if turn.role == "user":
                self._add(answers, contexts)
                answers = []
                self.add_question(turn)
            else:
                answers.append(turn)
        self._add(answers, contexts)
        self.element.visible = bool(turns)

    def add_question(self, turn: Turn) -> None:
        """What somebody asks."""
        self.element.visible = True
        with self._turns, box("pg-question"):
            Text("div", turn.text, "pg-question-text")

    def add_answers(self, models: Sequence[tuple[str, int | None]]) -> list[AnswerView]:
        """Empty ones of these models, with the context that each has."""
        turns = [Turn("assistant", "", side, name) for side, (name, _) in enumerate(models)]
        return self._add(turns, dict(models))

    def _add(self, turns: Sequence[Turn], contexts: Mapping[str, int | None]) -> list[AnswerView]:
        if not turns:
            return []
        with self._turns, box(f"pg-answers {'pg-two' if len(turns) > 1 else ''}"):
            return [AnswerView(turn, contexts.get(turn.model)) for turn in turns]
