"""`cortex events`."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console

from cortex_cli.adapters.event_stream import event_stream
from cortex_cli.commands.options import HomeOption, JsonOption, connection
from cortex_cli.output import console
from cortex_cli.shapes import as_object, parse_object
from cortex_contracts.subjects import EVENT_SUBJECTS, USAGE_SUBJECTS

app = typer.Typer()

_COLOURS = {"failed": "red", "unhealthy": "red", "rejected": "red", "healthy": "green", "started": "green"}


@app.command(
    epilog="Examples: `cortex events` · `cortex events 'container.>'` · `cortex events model.state_changed --json`"
)
def events(
    subject: Annotated[
        str | None, typer.Argument(help="NATS subject; * is one word, > the rest.", show_default="every event")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", help="End after so many events.", min=1)] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show events as they happen; with --json one envelope (CloudEvents) per line. Ctrl-C ends it."""
    subjects = [subject] if subject else [*EVENT_SUBJECTS, *USAGE_SUBJECTS]
    try:
        asyncio.run(_follow(connection(home).nats(), subjects, count, as_json=as_json))
    except KeyboardInterrupt:
        return


async def _follow(url: str, subjects: list[str], count: int | None, *, as_json: bool) -> None:
    out = console()
    async with event_stream(url, subjects) as stream:
        seen = 0
        while count is None or seen < count:
            subject, body = await stream.next()
            seen += 1
            text = body.decode("utf-8", "replace")
            if as_json:
                print(json.dumps(json.loads(text), ensure_ascii=False) if parse_object(text) else text, flush=True)
            else:
                _show(out, subject, parse_object(text))


def _show(out: Console, subject: str, envelope: Mapping[str, Any]) -> None:
    out.print(f"{clock(envelope.get('time'))}  ", end="", style="dim")
    out.print(f"{subject:<20} ", end="", style=_COLOURS.get(subject.rpartition(".")[2], "bold"))
    out.print(describe(as_object(envelope.get("data"))), markup=False, soft_wrap=True)


def describe(data: Mapping[str, Any]) -> str:
    """The payload in one line: empty fields left out, long ones cut."""
    parts = [f"{name}={_short(value)}" for name, value in data.items() if value not in (None, "", [], {})]
    return " ".join(parts)


def clock(timestamp: object) -> str:
    """Local time of day of an envelope."""
    try:
        return datetime.fromisoformat(str(timestamp)).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return "--:--:--.---"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.replace("\n", " ")
    return text if len(text) <= 100 else f"{text[:97]}..."
