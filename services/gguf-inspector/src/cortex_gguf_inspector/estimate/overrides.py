"""Free arguments of a llama-server that move memory. Anything else is ignored here."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_EXPERTS = re.compile(r"ffn_(up|down|gate|gate_up)_(ch|)exps\.")


@dataclass(frozen=True, slots=True)
class Overrides:
    """What `extra_args` say about memory."""

    experts_on_cpu: int = 0
    """Experts of the first so many layers stay on the CPU."""
    caches_on_cpu: bool = False
    swa_full: bool = False
    no_repack: bool = False
    main_device: int | None = None
    not_understood: tuple[str, ...] = ()


def is_expert(name: str) -> bool:
    """Whether a tensor of a layer holds experts that `--n-cpu-moe` keeps on the CPU."""
    return _EXPERTS.match(name) is not None


_ALL_LAYERS = 1 << 20
_VALUED_BUT_UNKNOWN = ("-ot", "--override-tensor", "-ncffn", "--n-cpu-ffn")


def parse_overrides(arguments: Sequence[str]) -> Overrides:
    """Read the arguments that matter; a tensor override by pattern is named in `not_understood`."""
    experts, caches, swa, repack, unknown = 0, False, False, False, list[str]()
    main: int | None = None
    for name, value in _pairs(arguments):
        match name:
            case "-cmoe" | "--cpu-moe":
                experts = _ALL_LAYERS
            case "-ncmoe" | "--n-cpu-moe":
                experts = _number(value, experts)
            case "-nkvo" | "--no-kv-offload":
                caches = True
            case "--swa-full":
                swa = True
            case "-nr" | "--no-repack":
                repack = True
            case "-mg" | "--main-gpu":
                main = _number(value, 0)
            case _ if name in _VALUED_BUT_UNKNOWN:
                unknown.append(f"{name} {value or ''}".strip())
            case _:
                pass
    return Overrides(experts, caches, swa, repack, main, tuple(unknown))


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for index, word in enumerate(arguments):
        if not word.startswith("-"):
            continue
        name, equals, value = word.partition("=")
        following = arguments[index + 1] if index + 1 < len(arguments) else None
        yield name, value if equals else following


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdecimal() else default
