"""From a diagnosis to a button: what can be changed at once, and what somebody has to do by hand first."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cortex_console.domain.formatting import duration_text
from cortex_console.domain.model_detail import Diagnosis
from cortex_console.domain.shapes import Row, number, text, texts

_OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
_PROPOSAL = re.compile(r"\b(context_size|max_model_len|ngl|parallel_slots) (\d+)")
_SET_TO = re.compile(r"[Ss]et (context_size|max_model_len) to (\d+)")
_UNKNOWN = frozenset({"engine_option_unsupported", "unknown_argument", "argument_removed"})
_TOO_LARGE = frozenset({"no_room", "kv_cache_too_small", "context_too_long"})
_WITHOUT: Mapping[str, tuple[str, ...]] = {
    "too_many_devices": ("tensor_split",),
    "bad_template": ("chat_template", "chat_template_file"),
    "bad_grammar": ("grammar_file",),
    "draft_mismatch": ("draft_model_path",),
    "draft_unusable": ("draft_model_path",),
    "projector_mismatch": ("mmproj_path",),
    "projector_unusable": ("mmproj_path",),
    "lora_mismatch": ("lora_adapters",),
    "lora_unusable": ("lora_adapters",),
}


@dataclass(frozen=True, slots=True)
class Fix:
    """What a button does. `patch` changes the model; then it is started anew."""

    label: str
    consequences: Sequence[str]
    patch: Mapping[str, object] = field(default_factory=dict[str, object])
    first: str = ""
    """What somebody has to do before, which no button can."""


def find_fix(diagnosis: Diagnosis, answer: Row) -> Fix:
    """The fix to offer for a model whose options are `answer`; trying again, where nothing can be changed from here."""
    patch = _patch(diagnosis, answer)
    if not patch:
        return Fix("Try again", ("It is started anew with the same settings.",), first=diagnosis.fix)
    told = [_change(name, answer.get(name), value) for name, value in patch.items()]
    return Fix(
        _label(diagnosis, patch),
        (*told, "Then it is started anew. The change is a revision: it can be rolled back."),
        patch,
    )


def _patch(diagnosis: Diagnosis, answer: Row) -> dict[str, object]:
    code = diagnosis.code
    if code in _UNKNOWN:
        words = texts(answer.get("extra_args"))
        for option in _OPTION.findall(diagnosis.message):
            left = without_option(words, option)
            if left != words:
                return {"extra_args": left}
        return {}
    if code in _TOO_LARGE:
        found = _SET_TO.search(diagnosis.fix) or _PROPOSAL.search(diagnosis.fix)
        return {found[1]: int(found[2])} if found and found[1] in answer else {}
    if code == "needs_flash_attention":
        return {"flash_attention": True}
    if code == "startup_timeout":
        present = number(answer.get("startup_timeout_s")) or 600
        return {"startup_timeout_s": int(present * 2)}
    return {name: None for name in _WITHOUT.get(code, ()) if answer.get(name)}


def without_option(words: Sequence[str], option: str) -> list[str]:
    """Arguments without an option and its values."""
    left: list[str] = []
    dropping = False
    for word in words:
        if word == option or word.startswith(f"{option}="):
            dropping = word == option
            continue
        if dropping and not _OPTION.fullmatch(word.partition("=")[0]):
            continue
        dropping = False
        left.append(word)
    return left


def _label(diagnosis: Diagnosis, patch: Mapping[str, object]) -> str:
    name, value = next(iter(patch.items()))
    if name == "extra_args":
        option = next(iter(_OPTION.findall(diagnosis.message)), "the option")
        return f"Remove {option} and start"
    if name == "startup_timeout_s" and isinstance(value, int):
        return f"Allow {duration_text(value)} and start"
    return f"Start without {name}" if value is None else f"Set {name} to {_word(value)} and start"


def _change(name: str, before: object, after: object) -> str:
    return f"{name} changes from {_word(before)} to {_word(after)}."


def _word(value: object) -> str:
    if value is None or value == []:
        return "nothing"
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(texts(value)) or text(value)
