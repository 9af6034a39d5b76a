"""`cortex key ...`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.arguments import find_key, parse_assignments
from cortex_cli.commands.calls import call, find_org, find_user, given, path_of
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.output import age, console, details, print_json, table

app = typer.Typer(
    no_args_is_help=True,
    help="API keys: make, limit, rotate and revoke them. `--mine` is about your own, which needs no administrator.",
    rich_markup_mode="markdown",
)
KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="Id, name or prefix.")]
MineOption = Annotated[bool, typer.Option("--mine", help="Your own keys only.")]
ModelsOption = Annotated[list[str] | None, typer.Option("--model", help="Only this model (repeatable).")]
ScopesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        help="Only this: chat, completions, embeddings, rerank, responses, messages (repeatable). "
        "For `/upstream/…`: * and upstream.",
    ),
]
AddressesOption = Annotated[
    list[str] | None, typer.Option("--ip", help="Only from this address or network, e.g. 10.0.0.0/8 (repeatable).")
]
DaysOption = Annotated[float | None, typer.Option(help="Days until it expires.", min=0.001)]
RequestsOption = Annotated[int | None, typer.Option("--rpm", help="Requests per minute.", min=1)]
TokensOption = Annotated[int | None, typer.Option("--tpm", help="Tokens per minute.", min=1)]
StreamsOption = Annotated[int | None, typer.Option("--streams", help="Streams at once.", min=1)]
BudgetOption = Annotated[int | None, typer.Option("--monthly-tokens", help="Tokens per month of UTC.", min=1)]
PriorityOption = Annotated[str | None, typer.Option(help="interactive, or batch: waits when a model is busy.")]
UserOption = Annotated[str | None, typer.Option("--user", help="Owner: a user's name or id.")]
OrgOption = Annotated[str | None, typer.Option("--org", help="An organisation's name or id; the user's, if not given.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any other field of the admin API as key=value (JSON or text).")
]


def _fields(settings: list[str] | None, days: float | None, **fields: Any) -> dict[str, Any]:
    body = given(**fields)
    if days is not None:
        body["expires_at"] = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    return {**body, **parse_assignments(settings or [])}


async def _with_owner(api: AdminApi, body: dict[str, Any], user: str | None, org: str | None) -> dict[str, Any]:
    """Names of users and organisations as the ids that the admin API takes."""
    if user is not None:
        body["user_id"] = (await find_user(api, user))["id"]
    if org is not None:
        body["org_id"] = (await find_org(api, org))["id"]
    return body


def _base(mine: bool) -> str:
    return "/admin/me/keys" if mine else "/admin/keys"


async def _find(api: AdminApi, wanted: str, mine: bool) -> tuple[str, Row]:
    """Path and row of the key that somebody means."""
    row = dict(find_key(await api.rows(f"{_base(mine)}?limit=1000"), wanted))
    return path_of(_base(mine).removeprefix("/admin/"), row), row


@app.command(
    epilog="Examples: `cortex key create alice` · `cortex key create ci --model smollm2-135m --scope chat --days 30` · "
    "`cortex key create batch --rpm 60 --monthly-tokens 5000000 --priority batch` · `cortex key create laptop --mine`"
)
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, or what for.")],
    models: ModelsOption = None,
    scopes: ScopesOption = None,
    addresses: AddressesOption = None,
    days: DaysOption = None,
    rpm: RequestsOption = None,
    tpm: TokensOption = None,
    streams: StreamsOption = None,
    monthly_tokens: BudgetOption = None,
    priority: PriorityOption = None,
    user: UserOption = None,
    org: OrgOption = None,
    mine: MineOption = False,
    settings: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key. It is shown this once and never again."""
    body = _fields(
        settings,
        days,
        name=name,
        models=models or None,
        scopes=scopes or None,
        ip_allowlist=addresses or None,
        requests_per_minute=rpm,
        tokens_per_minute=tpm,
        max_concurrent_streams=streams,
        tokens_per_month=monthly_tokens,
        priority=priority,
    )

    async def use(api: AdminApi) -> Row:
        return await api.call("POST", _base(mine), await _with_owner(api, body, user, org))

    _show_new(call(home, use), as_json=as_json)


@app.command(
    "list", epilog="Examples: `cortex key list` · `cortex key list --state active -q ci` · `cortex key list --json`"
)
def list_keys(
    state: Annotated[str | None, typer.Option(help="active, disabled, expired or revoked.")] = None,
    text: Annotated[str | None, typer.Option("--query", "-q", help="Part of the name, or the key's beginning.")] = None,
    user: UserOption = None,
    org: OrgOption = None,
    mine: MineOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List API keys (never their secret)."""

    async def use(api: AdminApi) -> list[Row]:
        owner = await _with_owner(api, {}, user, org)
        query = given(state=state, q=text, user=owner.get("user_id"), org=owner.get("org_id"), limit=1000)
        return await api.rows(f"{_base(mine)}?{urlencode(query)}")

    keys = call(home, use)
    if as_json:
        print_json(keys)
        return
    columns = ("name", "prefix", "state", "scopes", "models", "limits", "used", "age", "expires", "id")
    hint = "no keys: `cortex key create NAME`"
    console().print(table(columns, [_row(key) for key in keys]) if keys else hint)


@app.command(epilog="Examples: `cortex key mine`")
def mine(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List your own keys: the same as `cortex key list --mine`."""
    list_keys(mine=True, home=home, as_json=as_json)


@app.command(epilog="Examples: `cortex key show alice`")
def show(key: KeyArgument, mine: MineOption = False, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Everything about one key, but the key itself."""
    found = call(home, lambda api: _find(api, key, mine))[1]
    if as_json:
        print_json(found)
    else:
        console().print(details(found))


@app.command(
    epilog="Examples: `cortex key update alice --rpm 30` · `cortex key update ci --disable` · "
    "`cortex key update ci --set models=[]` (all models) · `cortex key update ci --set expires_at=null`"
)
def update(
    key: KeyArgument,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    models: ModelsOption = None,
    scopes: ScopesOption = None,
    addresses: AddressesOption = None,
    days: DaysOption = None,
    rpm: RequestsOption = None,
    tpm: TokensOption = None,
    streams: StreamsOption = None,
    monthly_tokens: BudgetOption = None,
    priority: PriorityOption = None,
    disabled: Annotated[bool | None, typer.Option("--disable/--enable", help="Stop it for now.")] = None,
    user: UserOption = None,
    org: OrgOption = None,
    mine: MineOption = False,
    settings: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what is named of a key; lists are replaced whole. Of your own keys only the name."""
    body = _fields(
        settings,
        days,
        name=name,
        models=models or None,
        scopes=scopes or None,
        ip_allowlist=addresses or None,
        requests_per_minute=rpm,
        tokens_per_minute=tpm,
        max_concurrent_streams=streams,
        tokens_per_month=monthly_tokens,
        priority=priority,
        disabled=disabled,
    )

    async def use(api: AdminApi) -> Row:
        path, _ = await _find(api, key, mine)
        return await api.call("PATCH", path, await _with_owner(api, body, user, org))

    changed = call(home, use)
    if as_json:
        print_json(changed)
    else:
        console().print(details(changed))


@app.command(epilog="Examples: `cortex key rotate ci` · `cortex key rotate ci --overlap-hours 1`")
def rotate(
    key: KeyArgument,
    overlap_hours: Annotated[float, typer.Option(help="How long the old key still works.", min=0)] = 24,
    mine: MineOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new key with the same settings; the old one works until the overlap ends. The new one is shown once."""

    async def use(api: AdminApi) -> Row:
        path, _ = await _find(api, key, mine)
        return await api.call("POST", f"{path}/rotate", {"overlap_s": int(overlap_hours * 3600)})

    _show_new(call(home, use), as_json=as_json)


@app.command(epilog="Examples: `cortex key revoke alice`")
def revoke(key: KeyArgument, mine: MineOption = False, home: HomeOption = None) -> None:
    """Revoke an API key at once and for ever."""

    async def use(api: AdminApi) -> Row:
        path, found = await _find(api, key, mine)
        await api.call("DELETE", path)
        return found

    console().print(f"revoked {call(home, use).get('name')}", markup=False)


def _show_new(key: Row, *, as_json: bool) -> None:
    if as_json:
        print_json(key)
    else:
        print(key["key"])


def _row(key: Row) -> tuple[object, ...]:
    limits = {
        "rpm": key.get("requests_per_minute"),
        "tpm": key.get("tokens_per_minute"),
        "streams": key.get("max_concurrent_streams"),
        "monthly": key.get("tokens_per_month"),
    }
    return (
        key.get("name"),
        key.get("prefix"),
        key.get("state"),
        ",".join(key.get("scopes") or ["*"]),
        ",".join(key.get("models") or ["all"]),
        " ".join(f"{name} {value}" for name, value in limits.items() if value is not None) or "none",
        age(key.get("last_used_at")),
        age(key.get("created_at")),
        key.get("expires_at") or "never",
        key.get("id"),
    )
