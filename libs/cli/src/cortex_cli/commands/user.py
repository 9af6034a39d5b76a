"""`cortex user ...`."""

from typing import Annotated, Any

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.commands.calls import call, find_org, find_user, given, path_of
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.output import age, console, details, print_json, table

app = typer.Typer(
    no_args_is_help=True,
    help="Who may administer: viewers look, operators start and stop models, admins may everything.",
    rich_markup_mode="markdown",
)
User = Annotated[str, typer.Argument(help="User name or id.")]
RoleOption = Annotated[str | None, typer.Option("--role", help="viewer, operator or admin.")]
OrgOption = Annotated[str | None, typer.Option("--org", help="Name or id of an organisation.")]
DisplayName = Annotated[str | None, typer.Option("--display-name", help="Name that people read.")]


async def _body(api: AdminApi, org: str | None, **fields: Any) -> dict[str, Any]:
    org_id = (await find_org(api, org))["id"] if org else None
    return given(org_id=org_id, **fields)


def _show_password(user: Row, *, as_json: bool) -> None:
    if as_json:
        print_json(user)
        return
    console().print(f"user name:          {user['username']}", markup=False)
    console().print(f"one-time password:  {user['one_time_password']}", markup=False)
    console().print("It is shown this once. The first sign-in (`cortex login`) asks for another.", markup=False)


@app.command(epilog="Examples: `cortex user create alice --role operator --org Research`")
def create(
    username: Annotated[str, typer.Argument(help="Name to sign in with.")],
    role: RoleOption = None,
    org: OrgOption = None,
    display_name: DisplayName = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a user with a one-time password, which is shown this once."""

    async def use(api: AdminApi) -> Row:
        body = await _body(api, org, username=username, role=role, display_name=display_name)
        return await api.call("POST", "/admin/users", body)

    _show_password(call(home, use), as_json=as_json)


@app.command("list", epilog="Examples: `cortex user list` · `cortex user list --json`")
def list_users(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List all users."""

    async def use(api: AdminApi) -> tuple[list[Row], list[Row]]:
        return await api.rows("/admin/users"), await api.rows("/admin/orgs")

    users, orgs = call(home, use)
    if as_json:
        print_json(users)
        return
    names = {org["id"]: org["name"] for org in orgs}
    rows = [
        (
            user.get("username"),
            user.get("role"),
            names.get(user.get("org_id"), "-"),
            "disabled" if user.get("disabled") else "one-time password" if user.get("must_change_password") else "",
            age(user.get("last_login_at")),
            user.get("id"),
        )
        for user in users
    ]
    columns = ("user", "role", "org", "", "last sign-in", "id")
    console().print(table(columns, rows) if rows else "no users yet: `cortex user create NAME`")


@app.command(epilog="Examples: `cortex user show alice`")
def show(user: User, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show one user."""
    found = call(home, lambda api: find_user(api, user))
    print_json(found) if as_json else console().print(details(found))


@app.command(epilog="Examples: `cortex user update alice --role admin` · `cortex user update bob --disable`")
def update(
    user: User,
    role: RoleOption = None,
    org: OrgOption = None,
    display_name: DisplayName = None,
    username: Annotated[str | None, typer.Option("--rename", help="Another user name.")] = None,
    disabled: Annotated[bool | None, typer.Option("--disable/--enable", help="Whether they may sign in.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a user. Disabling one, or changing the role, ends their sessions at once."""

    async def use(api: AdminApi) -> Row:
        found = await find_user(api, user)
        body = await _body(api, org, username=username, role=role, display_name=display_name, disabled=disabled)
        return await api.call("PATCH", path_of("users", found), body)

    changed = call(home, use)
    print_json(changed) if as_json else console().print(details(changed))


@app.command("reset-password", epilog="Examples: `cortex user reset-password alice`")
def reset_password(user: User, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Give a user a new one-time password, shown this once; ends their sessions."""

    async def use(api: AdminApi) -> Row:
        return await api.call("POST", f"{path_of('users', await find_user(api, user))}/reset-password")

    _show_password(call(home, use), as_json=as_json)


@app.command(epilog="Examples: `cortex user delete alice`")
def delete(user: User, home: HomeOption = None) -> None:
    """Delete a user with their sessions and tokens; refused while API keys of theirs work."""

    async def use(api: AdminApi) -> Row:
        found = await find_user(api, user)
        await api.call("DELETE", path_of("users", found))
        return found

    console().print(f"deleted {call(home, use)['username']}", markup=False)
