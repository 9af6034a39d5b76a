"""`cortex webhook ...`."""

import base64
import binascii
import hashlib
import hmac
import os
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.commands.calls import call
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import age, console, details, print_json, table
from cortex_cli.shapes import as_object

app = typer.Typer(
    no_args_is_help=True,
    help="Send events to an address of yours, signed. A WEBHOOK is named by name or id.",
    rich_markup_mode="markdown",
)
Webhook = Annotated[str, typer.Argument(help="Name or id.")]
Events = Annotated[list[str] | None, typer.Option("--event", "-e", help="Event type; * is one word. Repeat it.")]
SECRET = "CORTEX_WEBHOOK_SECRET"


@app.command(
    epilog="Examples: `cortex webhook create pager https://example.org/hook -e model.state_changed -e container.failed`"
)
def create(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Argument(help="http:// or https:// address that takes POST.")],
    events: Events = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Make it without sending yet.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a webhook. Its secret is shown this once; events are sent from now on."""
    body: dict[str, Any] = {"name": name, "url": url, "enabled": not disabled}
    body |= {"events": events} if events else {}
    made = call(home, lambda api: api.call("POST", "/admin/webhooks", body))
    if as_json:
        print_json(made)
        return
    print(made["secret"])
    print(f"cortex: try it with `cortex webhook test {name}`", file=sys.stderr)


@app.command("list", epilog="Examples: `cortex webhook list`")
def list_webhooks(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List all webhooks and how their endpoints fare."""
    webhooks = call(home, lambda api: api.rows("/admin/webhooks"))
    if as_json:
        print_json(webhooks)
        return
    columns = ("name", "url", "events", "state", "waiting", "last success", "last error", "id")
    rows = [
        (
            webhook.get("name"),
            webhook.get("url"),
            ",".join(webhook.get("events") or []),
            _state(webhook),
            webhook.get("pending"),
            age(webhook.get("last_success_at")),
            webhook.get("last_error") if webhook.get("failures") else "",
            webhook.get("id"),
        )
        for webhook in webhooks
    ]
    console().print(table(columns, rows) if rows else "no webhooks yet: `cortex webhook create NAME URL`")


@app.command(epilog="Examples: `cortex webhook show pager`")
def show(webhook: Webhook, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show everything about one webhook (never its secret)."""
    found = call(home, lambda api: _find(api, webhook))
    print_json(found) if as_json else console().print(details(found))


@app.command(
    epilog="Examples: `cortex webhook update pager --event 'model.*'` · `cortex webhook update pager --disable`"
)
def update(
    webhook: Webhook,
    name: Annotated[str | None, typer.Option("--name", help="Another name.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="Another address.")] = None,
    events: Events = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Send, or send nothing.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a webhook. Events of the time in which it was off are sent by `redeliver` only."""
    given: dict[str, Any] = {"name": name, "url": url, "events": events or None, "enabled": enabled}
    body = {field: value for field, value in given.items() if value is not None}
    if not body:
        raise CliError("Nothing to change.", fix="see `cortex webhook update --help`", exit_code=ExitCode.USAGE)

    async def use(api: AdminApi) -> Row:
        return await api.call("PATCH", _path(await _find(api, webhook)), body)

    changed = call(home, use)
    print_json(changed) if as_json else console().print(f"{changed.get('name')}: {_state(changed)}", markup=False)


@app.command(epilog="Examples: `cortex webhook delete pager`")
def delete(
    webhook: Webhook,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
) -> None:
    """Delete a webhook and its delivery log."""
    found = call(home, lambda api: _find(api, webhook))
    if not yes:
        typer.confirm(f"Delete {found.get('name')} ({found.get('url')})?", abort=True)
    call(home, lambda api: api.call("DELETE", _path(found)))
    console().print(f"deleted {found.get('name')}", markup=False)


@app.command("rotate-secret", epilog="Examples: `cortex webhook rotate-secret pager --overlap 24`")
def rotate_secret(
    webhook: Webhook,
    overlap: Annotated[float, typer.Option(help="Hours in which the old secret signs, too.", min=0, max=720)] = 24,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new secret, shown this once."""

    async def use(api: AdminApi) -> Row:
        path = _path(await _find(api, webhook))
        return await api.call("POST", f"{path}/rotate-secret", {"overlap_s": int(overlap * 3600)})

    made = call(home, use)
    print_json(made) if as_json else print(made["secret"])


@app.command("test", epilog="Examples: `cortex webhook test pager`")
def try_out(webhook: Webhook, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Send a signed test now; exit code 1 when it was not taken."""

    async def use(api: AdminApi) -> Row:
        return await api.call("POST", f"{_path(await _find(api, webhook))}/test", timeout=90)

    result = call(home, use)
    if as_json:
        print_json(result)
    elif result.get("delivered"):
        console().print(f"delivered: HTTP {result.get('status')} in {result.get('duration_ms')} ms", markup=False)
    if not result.get("delivered"):
        raise CliError(f"The test was not taken: {result.get('error')}.", code="not_delivered")


@app.command(
    epilog="Examples: `cortex webhook deliveries pager --status failed` · `cortex webhook deliveries pager --show 17`"
)
def deliveries(
    webhook: Webhook,
    status: Annotated[str | None, typer.Option("--status", help="pending, delivered, failed or cancelled.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many, the newest first.", min=1, max=1000)] = 30,
    one: Annotated[int | None, typer.Option("--show", help="One delivery with its attempts.", min=1)] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what was sent, how often, and what became of it."""

    async def use(api: AdminApi) -> Row:
        path = f"{_path(await _find(api, webhook))}/deliveries"
        if one is not None:
            return await api.call("GET", f"{path}/{one}")
        wanted = f"&status={quote(status)}" if status else ""
        return await api.call("GET", f"{path}?limit={limit}{wanted}")

    found = call(home, use)
    items = found.get("log", []) if one is not None else found.get("items", [])
    if as_json:
        print_json(found if one is not None else items)
        return
    names = ("at", "status", "duration_ms", "error")
    if one is None:
        names = ("id", "event_type", "status", "attempts", "created_at", "last_status", "last_error", "sequence")
    rows = [tuple(as_object(item).get(name) for name in names) for item in items]
    console().print(table(names, rows) if rows else "nothing was sent yet")


@app.command(
    epilog="Examples: `cortex webhook redeliver pager 17` · `cortex webhook redeliver pager --after 4000 --until 4711`"
)
def redeliver(
    webhook: Webhook,
    delivery: Annotated[int | None, typer.Argument(help="Id of a delivery.", min=1)] = None,
    after: Annotated[int | None, typer.Option("--after", help="Events above this sequence,", min=0)] = None,
    until: Annotated[int | None, typer.Option("--until", help="up to this one.", min=1)] = None,
    only_failed: Annotated[bool, typer.Option("--only-failed", help="Only what was given up or cancelled.")] = False,
    home: HomeOption = None,
) -> None:
    """Send one delivery, or the events of a range, once more. The receiver knows them by their id."""
    if (delivery is None) == (after is None or until is None):
        raise CliError("Name a delivery, or both --after and --until.", exit_code=ExitCode.USAGE)

    async def use(api: AdminApi) -> int:
        path = _path(await _find(api, webhook))
        if delivery is not None:
            await api.call("POST", f"{path}/deliveries/{delivery}/redeliver")
            return 1
        span = {"after": after, "until": until, "only_failed": only_failed, "limit": 10_000}
        return int((await api.call("POST", f"{path}/redeliver", span))["queued"])

    console().print(f"queued {call(home, use)}", markup=False)


@app.command(
    epilog=f"Example: `{SECRET}=whsec_… cortex webhook verify --id ID --timestamp 1674087231 --signature 'v1,…' body.json`"
)
def verify(
    body: Annotated[Path, typer.Argument(help="File with the body as it arrived; - reads standard input.")],
    message_id: Annotated[str, typer.Option("--id", help="Header webhook-id.")],
    timestamp: Annotated[str, typer.Option("--timestamp", help="Header webhook-timestamp.")],
    signature: Annotated[str, typer.Option("--signature", help="Header webhook-signature.")],
) -> None:
    """Check a signature that arrived, with the secret in CORTEX_WEBHOOK_SECRET; exit code 1 when it is wrong."""
    secret = os.environ.get(SECRET, "")
    try:
        raw = sys.stdin.buffer.read() if str(body) == "-" else body.read_bytes()
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except OSError as error:
        raise CliError(f"{body} cannot be read.", exit_code=ExitCode.USAGE) from error
    except binascii.Error as error:
        raise CliError(f"{SECRET} is no webhook secret.", exit_code=ExitCode.USAGE) from error
    if not key:
        raise CliError(f"{SECRET} is not set.", fix="put the whsec_… of the webhook there", exit_code=ExitCode.USAGE)
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + raw, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(digest).decode()}".encode()
    if not any(hmac.compare_digest(expected, one) for one in signature.encode().split()):
        raise CliError("The signature is not of this secret, id, timestamp and body.", code="wrong_signature")
    console().print("the signature is right")


async def _find(api: AdminApi, wanted: str) -> Row:
    """By id or name. Raises CliError `webhook_not_found`, `ambiguous_webhook`."""
    rows = await api.rows("/admin/webhooks")
    matches = [row for row in rows if row.get("id") == wanted] or [row for row in rows if row.get("name") == wanted]
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = ", ".join(str(row.get("id")) for row in matches)
        raise CliError(f"Several webhooks are called {wanted}.", code="ambiguous_webhook", fix=f"name one by id: {ids}")
    raise CliError(f"There is no webhook {wanted}.", code="webhook_not_found", fix="see `cortex webhook list`")


def _path(webhook: Row) -> str:
    return f"/admin/webhooks/{quote(str(webhook['id']), safe='')}"


def _state(webhook: Row) -> str:
    if not webhook.get("enabled"):
        return f"off: {webhook['disabled_reason']}" if webhook.get("disabled_reason") else "off"
    return f"failing since {age(webhook['failing_since'])}" if webhook.get("failing_since") else "ok"
