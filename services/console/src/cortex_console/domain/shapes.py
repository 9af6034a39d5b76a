"""Parts of JSON whose shape another service decides, with the types that pages rely on."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

Row = Mapping[str, Any]


def row(value: object) -> Row:
    """The object, or an empty one."""
    return cast("Row", value) if isinstance(value, Mapping) else {}


def rows(value: object) -> list[Row]:
    """The objects of a list; an empty list for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return []
    return [cast("Row", item) for item in cast("Sequence[object]", value) if isinstance(item, Mapping)]


def text(value: object, default: str = "") -> str:
    """The text, or the default for null."""
    return default if value is None else str(value)


def number(value: object) -> float | None:
    """The number; None for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def whole(value: object) -> int:
    """The whole number; 0 for anything else."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else 0


def texts(value: object) -> list[str]:
    """The items of a list as texts; an empty list for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return []
    return [str(item) for item in cast("Sequence[object]", value)]
