"""What the commands print: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cortex_cli.errors import CliError

STATE_COLOURS: Mapping[str, str] = {
    "running": "green",
    "ready": "green",
    "degraded": "yellow",
    "loading": "cyan",
    "starting": "cyan",
    "pulling": "cyan",
    "stopping": "cyan",
    "restarting": "yellow",
    "not ready": "yellow",
    "failed": "red",
}

_PIPE_WIDTH = 400


def console() -> Console:
    """Standard output, without rich's guesses about what is a path or a number; wide enough for any table in a pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def print_json(value: object) -> None:
    """One JSON document, indented, on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_error(error: CliError) -> None:
    """One line on standard error: what is wrong, its code, what to do next."""
    code = f" [{error.code}]" if error.code else ""
    fix = f" -> {error.fix}" if error.fix else ""
    first, _, rest = error.message.partition("\n")
    print(f"cortex: {first}{code}{fix}", file=sys.stderr)
    if rest:
        print(rest, file=sys.stderr)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A plain table; cells are shown as they are, never read as markup."""
    result = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for index, column in enumerate(columns):
        result.add_column(column, overflow="fold", no_wrap=index == 0)
    for row in rows:
        result.add_row(*(cell(value) for value in row))
    return result


def cell(value: object) -> Text:
    """One value, never read as markup; states in their colour."""
    text = "-" if value is None else str(value)
    return Text(text, style=STATE_COLOURS.get(text, ""))


def details(row: Mapping[str, Any]) -> Table:
    """Every field of one object, a line each; empty ones are left out."""
    return table(
        ("field", "value"), [(name, _flat(value)) for name, value in row.items() if value not in (None, [], {})]
    )


def age(timestamp: object, now: datetime | None = None) -> str:
    """How long ago, in one unit."""
    if not isinstance(timestamp, str):
        return "-"
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return timestamp
    return duration(((now or datetime.now(UTC)) - then).total_seconds())


def duration(seconds: float) -> str:
    """Seconds in the largest unit that fits."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def size(count: int | None) -> str:
    """Bytes in the unit people read."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit in ("B", "KiB") else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} TiB"


def _flat(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
