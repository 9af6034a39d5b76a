"""Small pictures of numbers for a terminal. Pure."""

from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_UNITS = ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
"""From which number on, divided by what."""


def bar(value: float, most: float, width: int) -> str:
    """A bar as long as `value` is of `most`, to an eighth of a character; something that is not 0 is never invisible."""
    if value <= 0 or most <= 0 or width <= 0:
        return ""
    eighths = max(1, round(min(1.0, value / most) * width * 8))
    return _EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def short(value: float | None) -> str:
    """A number in at most six characters: 9999, 12.3k, 4.57M."""
    if value is None:
        return "-"
    for least, factor, unit in _UNITS:
        if abs(value) >= least:
            scaled = value / factor
            return f"{scaled:.0f}{unit}" if abs(scaled) >= 100 else f"{scaled:.3g}{unit}"
    return f"{value:.0f}"


def milliseconds(value: float | None) -> str:
    """A duration as people read it."""
    if value is None:
        return "-"
    if value < 1000:
        return f"{value:.0f} ms"
    return f"{value / 1000:.1f} s" if value < 60_000 else f"{value / 60_000:.1f} min"


def thinned(values: Sequence[float], most: int) -> tuple[list[float], int]:
    """At most `most` sums of as many neighbours each; returns them and how many each is of."""
    each = max(1, -(-len(values) // most))
    return [sum(values[start : start + each]) for start in range(0, len(values), each)], each
