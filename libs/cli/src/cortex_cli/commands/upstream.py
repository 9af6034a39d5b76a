"""`cortex upstream ...`."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.arguments import parse_assignments
from cortex_cli.commands.calls import call, given
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.output import age, console, details, print_json, table

app = typer.Typer(
    no_args_is_help=True,
    help="Endpoints that Cortex routes to: register those that others run, see the health of all.",
    rich_markup_mode="markdown",
)
NameArgument = Annotated[str, typer.Argument(metavar="UPSTREAM", help="Id, served name or alias.")]
UrlsOption = Annotated[list[str] | None, typer.Option("--url", help="Base URL of an endpoint (repeatable).")]
ThereOption = Annotated[str | None, typer.Option("--served-name", help="The model's name there, if another one.")]
KeyOption = Annotated[
    str | None, typer.Option("--api-key", envvar="CORTEX_UPSTREAM_KEY", help="Key that the endpoints ask for.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any other field of the admin API as key=value (JSON or text).")
]


def _path(name: str) -> str:
    return f"/admin/upstreams/{quote(name, safe='')}"


def _endpoints(urls: list[str] | None, there: str | None, key: str | None) -> list[dict[str, Any]] | None:
    return [given(url=url, served_name=there, api_key=key) for url in urls] if urls else None


@app.command(
    epilog="Examples: `cortex upstream add qwen3-32b --url http://10.0.0.5:8000` · "
    "`cortex upstream add bge-m3 --url http://10.0.0.6:8000 --task embed --engine vllm`"
)
def add(
    name: Annotated[str, typer.Argument(help="The name clients ask for.")],
    urls: Annotated[list[str], typer.Option("--url", help="Base URL of an endpoint (repeatable).")],
    there: ThereOption = None,
    engine: Annotated[str, typer.Option(help="What runs there: vllm or llamacpp.")] = "vllm",
    task: Annotated[str, typer.Option(help="generate, embed or rerank.")] = "generate",
    api_key: KeyOption = None,
    settings: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a model that others run. Requests are routed to it as soon as it is healthy."""
    body = {
        "served_model_name": name,
        "engine_type": engine,
        "task": task,
        "endpoints": _endpoints(urls, there, api_key),
        **parse_assignments(settings or []),
    }

    async def use(api: AdminApi) -> Row:
        return await api.call("POST", "/admin/upstreams", body)

    _show(call(home, use), as_json=as_json)


@app.command("list", epilog="Examples: `cortex upstream list` · `cortex upstream list --external --json`")
def list_upstreams(
    external: Annotated[
        bool | None, typer.Option("--external/--own", help="Only those that others run, or ours.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every endpoint that the gateway may route to, with its health."""
    query = "" if external is None else f"?external={str(external).lower()}"

    async def use(api: AdminApi) -> list[Row]:
        return await api.rows(f"/admin/upstreams{query}")

    rows = call(home, use)
    if as_json:
        print_json(rows)
        return
    shown = [
        (row["model"], row["category"], row["url"], row["verdict"] or "unprobed", age(row["since"]), row["reason"])
        for row in rows
    ]
    console().print(table(("model", "task", "url", "health", "since", "reason"), shown))


@app.command(epilog="Example: `cortex upstream show qwen3-32b`")
def show(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a model that others run."""

    async def use(api: AdminApi) -> Row:
        return await api.call("GET", _path(name))

    _show(call(home, use), as_json=as_json)


@app.command(
    epilog="Examples: `cortex upstream update qwen3-32b --url http://10.0.0.7:8000` · "
    "`cortex upstream update qwen3-32b --set enabled=false`"
)
def update(
    name: NameArgument,
    urls: UrlsOption = None,
    there: ThereOption = None,
    api_key: KeyOption = None,
    settings: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a model that others run. An endpoint at the same URL keeps its key."""
    body = {**given(endpoints=_endpoints(urls, there, api_key)), **parse_assignments(settings or [])}

    async def use(api: AdminApi) -> Row:
        return await api.call("PATCH", _path(name), body)

    _show(call(home, use), as_json=as_json)


@app.command(epilog="Example: `cortex upstream remove qwen3-32b`")
def remove(name: NameArgument, home: HomeOption = None) -> None:
    """Forget a model that others run; what runs there goes on."""

    async def use(api: AdminApi) -> Row:
        return await api.call("DELETE", _path(name))

    call(home, use)
    console().print(f"{name} is no longer routed to.")


@app.command(epilog="Examples: `cortex upstream probe` · `cortex upstream probe qwen3-32b`")
def probe(
    name: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only this model's endpoints.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have endpoints probed now; `cortex upstream list` shows what came of it."""

    async def use(api: AdminApi) -> Row:
        return await api.call("POST", "/admin/upstreams/refresh-health", given(model=name))

    answer = call(home, use)
    if as_json:
        print_json(answer)
        return
    console().print(f"{len(answer['replicas'])} endpoints are being probed.")


def _show(row: Row, *, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    console().print(details(row))
