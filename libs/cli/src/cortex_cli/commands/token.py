"""`cortex token ...`."""

import asyncio
from typing import Annotated

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.commands.calls import call
from cortex_cli.commands.options import HomeOption, JsonOption, connection
from cortex_cli.commands.signing_in import Credentials, TokenWish, ask_new_password, ask_password, make_token
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import age, console, print_json, table

app = typer.Typer(
    no_args_is_help=True,
    help="Personal tokens: let scripts act for you, with your rights or fewer.",
    rich_markup_mode="markdown",
)


@app.command(epilog="Examples: `cortex token create backup --role viewer --days 30`")
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    role: Annotated[str | None, typer.Option(help="viewer, operator or admin.", show_default="your own")] = None,
    days: Annotated[float | None, typer.Option(help="Days until it expires.", min=0.001)] = None,
    user: Annotated[str | None, typer.Option(help="User name.", show_default="that of the profile")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a personal token. It is shown this once. Asks for your password: a token cannot make others."""
    endpoint = connection(home).registry()
    me = call(home, lambda api: api.call("GET", "/admin/auth/me")) if user is None else {}
    username = user or str(me.get("username"))
    if user is None and me.get("kind") == "root":
        raise CliError(
            "The admin token of the settings is no user.", fix="say who you are: --user NAME", exit_code=ExitCode.USAGE
        )
    password = ask_password(username, from_stdin=password_stdin)
    credentials = Credentials(endpoint.url, username, password, lambda: ask_new_password(from_stdin=password_stdin))
    token = asyncio.run(make_token(credentials, TokenWish(name, role, days)))
    print_json(token) if as_json else print(token["token"])


@app.command("list", epilog="Examples: `cortex token list`")
def list_tokens(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List your tokens (never their secret)."""
    tokens = call(home, lambda api: api.rows("/admin/me/tokens"))
    if as_json:
        print_json(tokens)
        return
    rows = [
        (
            token.get("name"),
            token.get("prefix"),
            token.get("role"),
            age(token.get("last_used_at")),
            token.get("expires_at") or "never",
            token.get("id"),
        )
        for token in tokens
    ]
    columns = ("name", "prefix", "role", "last used", "expires", "id")
    console().print(table(columns, rows) if rows else "no tokens yet: `cortex token create NAME`")


@app.command(epilog="Examples: `cortex token revoke backup`")
def revoke(
    token: Annotated[str, typer.Argument(help="Id, prefix, or name when only one has it.")], home: HomeOption = None
) -> None:
    """Revoke one of your tokens at once and for ever."""

    async def use(api: AdminApi) -> Row:
        rows = await api.rows("/admin/me/tokens")
        matches = [row for row in rows if token in (row["id"], row["prefix"])] or [
            row for row in rows if row["name"] == token
        ]
        if len(matches) != 1:
            problem = "Several tokens are" if matches else "No token is"
            raise CliError(
                f"{problem} called {token}.", code="token_not_found", fix="name one by id: `cortex token list`"
            )
        await api.call("DELETE", f"/admin/me/tokens/{matches[0]['id']}")
        return matches[0]

    console().print(f"revoked {call(home, use)['name']}", markup=False)
