"""llama-server's text completions as OpenAI has them: legacy log probabilities, and the prompt repeated on `echo`."""

from collections.abc import Sequence

import msgspec

_Object = dict[str, msgspec.Raw]
_NULL = msgspec.Raw(b"null")


class _Top(msgspec.Struct):
    token: str
    logprob: float


class _Entry(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_Top] = []


class _Content(msgspec.Struct):
    content: list[_Entry] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str = ""
    logprobs: msgspec.Raw = _NULL


class TextChoices:
    """Rewrites the choices of one request's answers, whole or chunk by chunk.

    Args:
        tops: alternatives per token that the client asked for; None when it asked for no log probabilities.
        prompts: the prompts to repeat before each choice; empty without `echo`.
        choices_per_prompt: choices are numbered prompt by prompt.
    """

    __slots__ = ("_choices_per_prompt", "_echoed", "_offsets", "_prompts", "_tops")

    def __init__(self, *, tops: int | None, prompts: Sequence[str], choices_per_prompt: int) -> None:
        self._tops = tops
        self._prompts = prompts
        self._choices_per_prompt = choices_per_prompt
        self._offsets: dict[int, int] = {}
        self._echoed: set[int] = set()

    def rewrite(self, members: _Object) -> None:
        """Change an answer's or event's `choices` in place; one without choices stays as it is."""
        if "choices" not in members:
            return
        choices = msgspec.json.decode(members["choices"], type=list[_Object])
        for choice in choices:
            self._rewrite_choice(choice)
        members["choices"] = msgspec.Raw(msgspec.json.encode(choices))

    def _rewrite_choice(self, choice: _Object) -> None:
        seen = msgspec.json.decode(msgspec.json.encode(choice), type=_Choice)
        if self._prompts and seen.index not in self._echoed:
            self._echoed.add(seen.index)
            prompt = self._prompts[min(seen.index // self._choices_per_prompt, len(self._prompts) - 1)]
            choice["text"] = msgspec.Raw(msgspec.json.encode(prompt + seen.text))
        if self._tops is not None and bytes(seen.logprobs) != b"null":
            content = msgspec.json.decode(seen.logprobs, type=_Content).content or []
            legacy, self._offsets[seen.index] = legacy_logprobs(content, self._offsets.get(seen.index, 0), self._tops)
            choice["logprobs"] = msgspec.Raw(msgspec.json.encode(legacy))


def legacy_logprobs(content: Sequence[_Entry], offset: int, tops: int) -> tuple[dict[str, object], int]:
    """Chat's list of tokens as four parallel lists; also where the text after them begins."""
    offsets: list[int] = []
    for entry in content:
        offsets.append(offset)
        offset += len(entry.token)
    lists: dict[str, object] = {
        "text_offset": offsets,
        "token_logprobs": [entry.logprob for entry in content],
        "tokens": [entry.token for entry in content],
        "top_logprobs": [{top.token: top.logprob for top in entry.top_logprobs[:tops]} for entry in content],
    }
    return lists, offset
