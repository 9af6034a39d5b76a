"""Options to words: a table of rules per engine, and the build's own list of what it knows.

An option that the build lacks is left out with a warning, unless the model would be another one without it. So a new
or an old build serves what it can, and never ends at once because of a word that it does not know.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum

from cortex_orchestrator.domain.spec import Capabilities, SpecError


class Kind(StrEnum):
    """How a value is written."""

    VALUE = "value"
    LIST = "list"
    """One word a value."""
    JSON = "json"
    SWITCH = "switch"
    """The name alone, when the value is true."""
    EITHER = "either"
    """`names` for true, `off` for false."""
    ON_OFF = "on_off"
    """The words on and off; builds that list the name without a value take it alone."""
    PATH = "path"
    """A file below the models folder."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How one option of the contract is written. `names` are tried in order, the newest spelling first."""

    field: str
    names: tuple[str, ...]
    kind: Kind = Kind.VALUE
    off: tuple[str, ...] = ()
    needed: bool = False
    """Without it the answers would be another model's: refuse instead of leaving it out."""


@dataclass(slots=True)
class Arguments:
    """Collects the words of one command line, and warnings about what had to be left out."""

    engine: str
    """What the engine is called in a sentence."""
    capabilities: Capabilities
    resolve: Callable[[str], str]
    """A path below the models folder as the engine will see it; raises SpecError."""
    words: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])

    def listed(self, *names: str) -> str | None:
        """The first of the names that the build lists; every build nobody asked is taken for a current one."""
        flags = self.capabilities.flags
        return next((name for name in names if not flags or name in flags), None)

    def add(self, *names: str, value: object = None) -> None:
        """Add an option that the model cannot do without.

        Raises:
            SpecError: the build lists none of the names.
        """
        name = self.listed(*names)
        if name is None:
            raise SpecError(
                "engine_option_unsupported",
                f"This {self.engine} does not know {names[0]}: use a newer build or leave the option out.",
            )
        self._append(name, value)

    def add_if_listed(self, *names: str, value: object = None) -> bool:
        """Add an option that is only wise; False when the build lacks it."""
        name = self.listed(*names)
        if name is not None:
            self._append(name, value)
        return name is not None

    def leave_out(self, option: str, name: str) -> None:
        """Warn that an option has no effect."""
        self.warnings.append(f"This {self.engine} does not know {name}: {option} was left out.")

    def apply(self, rules: Sequence[Rule], values: Mapping[str, object]) -> None:
        """Write every option that is set.

        Raises:
            SpecError: the build lacks an option that is needed.
        """
        for rule in rules:
            value = values[rule.field]
            if value is not None and value != () and value != {}:
                self._write(rule, value)

    def _write(self, rule: Rule, value: object) -> None:
        names = rule.off if rule.kind is Kind.EITHER and not value else rule.names
        if rule.kind is Kind.SWITCH and not value:
            return
        name = self.listed(*names)
        if name is None:
            if rule.needed:
                self.add(*names)
            self.leave_out(rule.field, names[0])
            return
        self._write_value(rule, name, value)

    def _write_value(self, rule: Rule, name: str, value: object) -> None:
        match rule.kind:
            case Kind.SWITCH | Kind.EITHER:
                self._append(name)
            case Kind.ON_OFF if name in self.capabilities.switches:
                if value:
                    self._append(name)
            case Kind.ON_OFF:
                self._append(name, "on" if value else "off")
            case Kind.JSON:
                self._append(name, compact_json(value))
            case Kind.PATH:
                self._append(name, self.resolve(str(value)))
            case Kind.LIST:
                self.words += [name, *(str(item) for item in _items(value))]
            case Kind.VALUE:
                self._append(name, value)

    def _append(self, name: str, value: object = None) -> None:
        self.words.append(name)
        if value is not None:
            self.words.append(str(value))


def compact_json(value: object) -> str:
    """The same text for the same value, so that the hash of a specification stays the same."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, tuple | list) else (value,)  # pyright: ignore[reportUnknownVariableType]


def flag_of(word: str) -> str | None:
    """The option that a word of a command line names, as both engines read it; None for a value."""
    if not word.startswith("-") or word == "-" or _is_number(word):
        return None
    flag = word.split("=", 1)[0]
    return flag.replace("_", "-") if flag.startswith("--") else flag


def check_known(engine: str, words: Sequence[str], known: frozenset[str], accepts: Callable[[str], bool]) -> None:
    """Refuse a free argument that the build would refuse: it would end again and again.

    Raises:
        SpecError: naming the argument, and what it may have been meant to be.
    """
    for word in words:
        flag = flag_of(word)
        if flag is None or accepts(flag):
            continue
        close = get_close_matches(flag, known, n=1, cutoff=0.75)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise SpecError("engine_option_unsupported", f"This {engine} does not know {flag} in extra_args.{hint}")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
