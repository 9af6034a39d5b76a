"""`cortex org ...`."""

from typing import Annotated

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.commands.calls import call, find_org, path_of
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.output import age, console, print_json, table

app = typer.Typer(
    no_args_is_help=True, help="Organisations that users and API keys belong to.", rich_markup_mode="markdown"
)
Org = Annotated[str, typer.Argument(help="Name or id.")]


@app.command(epilog="Examples: `cortex org create Research`")
def create(
    name: Annotated[str, typer.Argument(help="Name of the new organisation.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an organisation."""
    org = call(home, lambda api: api.call("POST", "/admin/orgs", {"name": name}))
    print_json(org) if as_json else console().print(f"created {org['name']} ({org['id']})", markup=False)


@app.command("list", epilog="Examples: `cortex org list`")
def list_orgs(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List all organisations."""
    orgs = call(home, lambda api: api.rows("/admin/orgs"))
    if as_json:
        print_json(orgs)
        return
    rows = [(org.get("name"), org.get("users"), age(org.get("created_at")), org.get("id")) for org in orgs]
    columns = ("name", "users", "age", "id")
    console().print(table(columns, rows) if rows else "no organisations yet: `cortex org create NAME`")


@app.command(epilog="Examples: `cortex org rename Research 'Research and Development'`")
def rename(
    org: Org,
    name: Annotated[str, typer.Argument(help="The new name.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an organisation another name."""

    async def use(api: AdminApi) -> Row:
        return await api.call("PATCH", path_of("orgs", await find_org(api, org)), {"name": name})

    changed = call(home, use)
    print_json(changed) if as_json else console().print(f"renamed to {changed['name']}", markup=False)


@app.command(epilog="Examples: `cortex org delete Research`")
def delete(org: Org, home: HomeOption = None) -> None:
    """Delete an organisation that no user and no working API key belongs to."""

    async def use(api: AdminApi) -> Row:
        found = await find_org(api, org)
        await api.call("DELETE", path_of("orgs", found))
        return found

    console().print(f"deleted {call(home, use)['name']}", markup=False)
