"""Answers that are on their way, so that whoever opens their conversation once more sees them come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cortex_console.domain.chat import Conversation, Turn


@dataclass(slots=True, eq=False)
class Answering:
    """One question that is being answered. The panel that asked is the first to watch."""

    conversation: Conversation
    turns: Callable[[], Sequence[Turn]]
    """What there is of the answers now."""
    stop: Callable[[], None]
    watchers: int = 1
    done: bool = False
    kept: bool = True
    """Once it is done: whether the registry has it."""
    asked: int = field(init=False)
    """Turns up to the question."""

    def __post_init__(self) -> None:
        self.asked = len(self.conversation.turns)

    def leave(self) -> None:
        """One watches no longer; for nobody it is not continued."""
        self.watchers -= 1
        if not self.watchers:
            self.stop()

    def copy(self) -> Conversation:
        """What was said, to go on with apart from the others that watch."""
        one = self.conversation
        turns = one.turns if self.done else one.turns[: self.asked]
        return replace(one, models=[*one.models], parameters={**one.parameters}, turns=[*turns])


class UnderWay:
    """All of them in this process, by user and conversation."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, str], Answering] = {}

    def begin(self, user: str, answering: Answering) -> Callable[[], None]:
        """Make it known; gives what ends that."""
        key = (user, answering.conversation.id)
        self._all[key] = answering

        def end() -> None:
            answering.done = True
            if self._all.get(key) is answering:
                del self._all[key]

        return end

    def find(self, user: str, conversation_id: str) -> Answering | None:
        """That of one's own conversation."""
        return self._all.get((user, conversation_id))
