"""`cortex events`."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.console import Console

from cortex_cli.adapters.admin_api import admin_api
from cortex_cli.adapters.event_source import follow_events
from cortex_cli.adapters.event_stream import event_stream
from cortex_cli.commands.options import HomeOption, JsonOption, connection
from cortex_cli.connection import Endpoint
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import console
from cortex_cli.shapes import as_object, parse_object

app = typer.Typer()

_COLOURS = {"failed": "red", "unhealthy": "red", "rejected": "red", "healthy": "green", "started": "green"}
_NOTICES = ("gap", "overrun")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PAGE = 500


@app.command(
    epilog="Examples: `cortex events` · `cortex events 'container.*'` · `cortex events model.state_changed --json` · "
    "`cortex events --model my-model --since 2h --no-follow` · `cortex events --request REQUEST_ID --no-follow`"
)
def events(
    subject: Annotated[
        str | None,
        typer.Argument(help="Event type; * is one word, > the rest.", show_default="every event but usage"),
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", help="End after so many events.", min=1)] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Go on with what happens.")] = True,
    last: Annotated[
        int | None, typer.Option("--last", help="Begin with so many events of the past.", min=1, max=1000)
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="Begin so long ago (30m, 2h, 7d) or at a time.")] = None,
    after: Annotated[int | None, typer.Option("--after", help="Begin behind this sequence.", min=0)] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only of this model: id or served name.")] = None,
    replica: Annotated[str | None, typer.Option("--replica", help="Only of this replica: id.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only of this API key: id.")] = None,
    request: Annotated[str | None, typer.Option("--request", help="Only what followed from this request: id.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="Only from this service, like orchestrator.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what happened and what happens; with --json one envelope (CloudEvents) per line. Ctrl-C ends it."""
    given = {"type": subject, "model": model, "replica": replica, "key": key, "correlation": request, "source": source}
    query: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if since is not None:
        query["since"] = _moment(since).isoformat()
    out = _Output(as_json, count)
    try:
        if subject is not None and subject.startswith("usage."):
            asyncio.run(_follow_nats(connection(home).nats(), subject, out))
        else:
            asyncio.run(_show_all(connection(home).registry(), query, _Wanted(follow, last, after, since), out))
    except KeyboardInterrupt:
        return


class _Wanted:
    """Which part of the past, and whether to go on."""

    def __init__(self, follow: bool, last: int | None, after: int | None, since: str | None) -> None:
        self.follow = follow
        self.after = after if after is not None else (0 if since is not None else None)
        self.last = last if last is not None or follow or self.after is not None else 50


class _Output:
    """Shows events until there were enough."""

    def __init__(self, as_json: bool, count: int | None) -> None:
        self._as_json = as_json
        self._left = count
        self._console = console()

    @property
    def enough(self) -> bool:
        return self._left is not None and self._left <= 0

    def show(self, subject: str, text: str) -> None:
        if self.enough:
            return
        if self._left is not None:
            self._left -= 1
        envelope = parse_object(text)
        if self._as_json:
            print(json.dumps(envelope, ensure_ascii=False) if envelope else text, flush=True)
        else:
            _show(self._console, subject, envelope)


async def _show_all(endpoint: Endpoint, query: Mapping[str, Any], wanted: _Wanted, out: _Output) -> None:
    after = wanted.after
    if wanted.last is not None:
        after = await _history(endpoint, query, wanted.last, out)
    if out.enough:
        return
    if not wanted.follow:
        if wanted.last is None:
            await _forwards(endpoint, query, after or 0, out)
        return
    async with aclosing(follow_events(endpoint, query, after=after)) as stream:
        async for received in stream:
            if received.name not in _NOTICES:
                out.show(_bare(received.name), json.dumps(received.data))
            if out.enough:
                return


async def _history(endpoint: Endpoint, query: Mapping[str, Any], last: int, out: _Output) -> int:
    """The last events that match, oldest first; returns where the log ended."""
    async with admin_api(endpoint) as api:
        page = await api.call("GET", _path(query, limit=last, order="newest"))
    items = [as_object(item) for item in page.get("items", [])]
    for item in reversed(items):
        out.show(_bare(str(item.get("type"))), json.dumps(_envelope(item)))
    return int(page.get("head") or 0)


async def _forwards(endpoint: Endpoint, query: Mapping[str, Any], after: int, out: _Output) -> None:
    async with admin_api(endpoint) as api:
        while not out.enough:
            page = await api.call("GET", _path(query, limit=_PAGE, order="oldest", after=after))
            for item in (as_object(item) for item in page.get("items", [])):
                out.show(_bare(str(item.get("type"))), json.dumps(_envelope(item)))
            if page.get("next") is None:
                return
            after = int(page["next"])


def _path(query: Mapping[str, Any], **more: Any) -> str:
    return f"/admin/events?{urlencode({**query, **more})}"


def _envelope(item: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the list as the envelope that the stream sends."""
    extra = ("model_id", "replica_id", "key_id")
    kept = {name: value for name, value in item.items() if name not in extra and value is not None}
    return {"specversion": "1.0", **kept, "sequence": str(item.get("sequence"))}


async def _follow_nats(url: str, subject: str, out: _Output) -> None:
    """Usage is no part of the log: it is seen only while it passes."""
    async with event_stream(url, [subject]) as stream:
        while not out.enough:
            name, body = await stream.next()
            out.show(name, body.decode("utf-8", "replace"))


def _moment(text: str) -> datetime:
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isascii() and number.isdecimal() and len(number) < 10:
        return datetime.now(UTC) - timedelta(seconds=int(number) * _UNITS[unit])
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        message = f"--since {text} is neither like 30m, 2h, 7d nor a time like 2026-01-31T12:00."
        raise CliError(message, exit_code=ExitCode.USAGE) from None


def _bare(type_name: str) -> str:
    """The type without its version."""
    head, _, version = type_name.rpartition(".")
    return head if version[:1] == "v" and version[1:].isdecimal() else type_name


def _show(out: Console, subject: str, envelope: Mapping[str, Any]) -> None:
    out.print(f"{clock(envelope.get('time'))}  ", end="", style="dim")
    out.print(f"{subject:<20} ", end="", style=_COLOURS.get(subject.rpartition(".")[2], "bold"), markup=False)
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
