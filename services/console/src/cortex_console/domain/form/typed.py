"""From what was typed to a value, and back."""

import json
import math
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, cast

from cortex_console.domain.form.fields import FormField, Widget


class WrongValue(ValueError):
    """What was typed cannot be meant; the message is shown at the field."""


def parse(field: FormField, typed: Any) -> Any:
    """The value of what is in an input; an empty one gives the default.

    Raises:
        WrongValue: it cannot be read.
    """
    if field.widget is Widget.SWITCH:
        return bool(typed)
    if field.widget is Widget.CHOICE:
        return typed
    said = str(typed if typed is not None else "").strip()
    if not said:
        if field.required:
            raise WrongValue(f"{field.label} is missing.")
        return field.default
    return _READERS.get(field.widget, _text)(field, said)


def shown(field: FormField, value: Any) -> Any:
    """What an input shows for a value; nothing for the default, whose meaning stands in the empty input."""
    if field.widget is Widget.SWITCH:
        return bool(value)
    if field.widget is Widget.CHOICE:
        return value
    if value is None or (value == field.default and not field.required):
        return ""
    match field.widget:
        case Widget.NAMES:
            return ", ".join(value)
        case Widget.WORDS:
            return shlex.join(value)
        case Widget.PAIRS:
            return "\n".join(f"{name}={said}" for name, said in value.items())
        case Widget.JSON:
            return json.dumps(value, ensure_ascii=False)
        case Widget.PLACEMENT:
            return "" if isinstance(value, str) else ", ".join(str(index) for index in value)
        case Widget.NUMBER:
            return f"{value:g}" if isinstance(value, float) else str(value)
        case _:
            return str(value)


def said(field: FormField, value: Any) -> str:
    """A value in words, for a list of changes."""
    if value in (None, "", [], {}):
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if field.widget is Widget.CHOICE:
        return next((word for known, word in field.choices if known == value), str(value))
    if field.widget in (Widget.NAMES, Widget.WORDS, Widget.PAIRS, Widget.PLACEMENT) and not isinstance(value, str):
        return shown(field, value).replace("\n", ", ")
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False)
    unit = f" {field.unit}" if field.unit else ""
    return f"{value:g}{unit}" if isinstance(value, float) else f"{value}{unit}"


def _number(field: FormField, said: str) -> int | float:
    plain = said.replace(" ", "").replace("_", "")
    factor = 1
    if field.whole and plain[-1:] in "kK" and plain[:-1].isdecimal():
        plain, factor = plain[:-1], 1024  # people write 32k for a context
    try:
        value = int(plain) * factor if field.whole else float(plain)
    except ValueError:
        raise WrongValue("A whole number is wanted." if field.whole else "A number is wanted.") from None
    if not math.isfinite(value):
        raise WrongValue("A number is wanted.")
    low, high = field.minimum, field.maximum
    if low is not None and (value < low or (field.exclusive and value == low)):
        raise WrongValue(f"{'More than' if field.exclusive else 'At least'} {low:g}.")
    if high is not None and value > high:
        raise WrongValue(f"At most {high:g}.")
    return value


def _text(field: FormField, said: str) -> str:
    if field.name == "tensor_split" and not re.fullmatch(field.pattern or ".*", said):
        raise WrongValue("Proportions with commas between, like 3,1.")
    return said


def _names(field: FormField, said: str) -> list[str]:
    del field
    return [name for name in re.split(r"[\s,]+", said) if name]


def _words(field: FormField, said: str) -> list[str]:
    del field
    try:
        return shlex.split(said)
    except ValueError:
        raise WrongValue("A quotation mark is not closed.") from None


def _pairs(field: FormField, said: str) -> dict[str, str]:
    del field
    found: dict[str, str] = {}
    for line in said.splitlines():
        if not line.strip():
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise WrongValue(f"NAME=value is wanted, a line each: {line.strip()[:30]}")
        found[name.strip()] = value
    return found


def _json(field: FormField, said: str) -> Any:
    try:
        value: object = json.loads(said)
    except ValueError as error:
        raise WrongValue(f"No JSON: {error}") from None
    if field.array and not isinstance(value, list):
        raise WrongValue("A list in [ ] is wanted.")
    if not field.array and not isinstance(value, Mapping):
        raise WrongValue("An object in { } is wanted.")
    return cast("Any", value)


def _placement(field: FormField, said: str) -> Any:
    del field
    if said.lower() == "auto":
        return "auto"
    parts = [part for part in re.split(r"[\s,]+", said) if part]
    if not all(part.isdecimal() for part in parts):
        raise WrongValue("Numbers of GPUs, like 0, 1; empty lets Cortex choose.")
    return [int(part) for part in parts]


_READERS: Mapping[Widget, Callable[[FormField, str], Any]] = {
    Widget.NUMBER: _number,
    Widget.NAMES: _names,
    Widget.WORDS: _words,
    Widget.PAIRS: _pairs,
    Widget.JSON: _json,
    Widget.PLACEMENT: _placement,
}
