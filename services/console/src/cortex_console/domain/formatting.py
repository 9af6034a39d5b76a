"""Numbers and times as people read them."""

from datetime import datetime, timedelta

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_SHORT = ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k"))
NOTHING = "–"


def bytes_text(value: float | None) -> str:
    """1536 -> `1.5 KiB`."""
    if value is None:
        return NOTHING
    size = float(value)
    for unit in _BINARY[:-1]:
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_BINARY[-1]}"


def count_text(value: float | None) -> str:
    """12345 -> `12.3k`."""
    if value is None:
        return NOTHING
    for size, suffix in _SHORT:
        if abs(value) >= size:
            return f"{value / size:.1f}{suffix}"
    return f"{value:.0f}"


def rate_text(value: float | None) -> str:
    """A rate per second: two digits that count, a dash for nothing."""
    if not value:
        return NOTHING
    if value >= 100:
        return count_text(value)
    if value < 0.01:
        return "<0.01"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def duration_text(seconds: float | None) -> str:
    """75 -> `1 min 15 s`; two units at most."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    left = int(seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        amount, left = divmod(left, size)
        if amount or parts:
            parts.append(f"{amount} {unit}")
    return " ".join(parts[:2])


def moment(value: object) -> datetime | None:
    """A time of the API; None when there is none."""
    if not isinstance(value, str) or not value:
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def ago_text(value: object, now: datetime) -> str:
    """`3 min ago`."""
    at = moment(value)
    if at is None:
        return NOTHING
    passed = now - at
    if passed < timedelta(seconds=5):
        return "just now"
    seconds = int(passed.total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def time_text(value: object) -> str:
    """The date and time of day in UTC, to the second."""
    at = moment(value)
    return NOTHING if at is None else at.strftime("%Y-%m-%d %H:%M:%S UTC")


def time_cells(name: str, value: object, now: datetime) -> dict[str, object]:
    """Fields of a table's row for the cell TIME: how long ago, and exactly when on hover."""
    at = moment(value)
    return {
        name: ago_text(value, now),
        f"{name}_exact": time_text(value) if at else "",
        f"{name}_at": at.isoformat() if at else "",
        f"{name}_sort": at.timestamp() if at else 0.0,
    }
