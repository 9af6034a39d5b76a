"""`cortex recipe ...`."""

from typing import Annotated
from urllib.parse import quote, urlencode

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.commands.calls import call, given
from cortex_cli.commands.models import FileOption, SetOption, find, read_fields, report
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.output import age, console, details, print_json, table

app = typer.Typer(
    no_args_is_help=True,
    help="Configurations to make models from. A RECIPE is named by name or id.",
    rich_markup_mode="markdown",
)
Recipe = Annotated[str, typer.Argument(help="Name or id.")]
NewName = Annotated[str, typer.Argument(help="Name of the recipe.")]
Description = Annotated[str | None, typer.Option("--description", help="What it is good for.")]


def _path(recipe: str) -> str:
    return f"/admin/recipes/{quote(recipe, safe='')}"


@app.command(
    epilog="Examples: `cortex recipe save my-model 'gpt-oss on two GPUs'` · `cortex recipe save my-model fast`"
)
def save(
    model: Annotated[str, typer.Argument(help="Model to take it from: name, served name or id.")],
    name: NewName,
    description: Description = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a model's configuration as a recipe: every field but names and secrets."""

    async def use(api: AdminApi) -> Row:
        path = f"/admin/recipes/from-model/{quote(str((await find(api, model))['id']), safe='')}"
        return await api.call("POST", path, given(name=name, description=description))

    _saved(call(home, use), "saved", as_json=as_json)


@app.command(epilog="Example: `cortex recipe create small --set engine_type=llamacpp --set local_path=small.gguf`")
def create(
    name: NewName,
    description: Description = None,
    file: FileOption = None,
    settings: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a recipe from fields."""
    body = given(name=name, description=description, fields=read_fields(file, settings, {}))
    _saved(call(home, lambda api: api.call("POST", "/admin/recipes", body)), "saved", as_json=as_json)


@app.command("list", epilog="Examples: `cortex recipe list` · `cortex recipe list -q gpt --engine llamacpp`")
def list_recipes(
    text: Annotated[str | None, typer.Option("-q", help="Looked for in name and description.")] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="llamacpp or vllm.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="generate, embed or rerank.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List recipes."""
    query = urlencode(given(q=text, engine_type=engine, task=task))
    recipes = call(home, lambda api: api.rows(f"/admin/recipes?{query}" if query else "/admin/recipes"))
    if as_json:
        print_json(recipes)
        return
    columns = ("name", "engine", "task", "description", "by", "changed", "id")
    rows = [
        (
            one.get("name"),
            one.get("engine_type"),
            one.get("task"),
            one.get("description") or "",
            one.get("created_by"),
            age(one.get("updated_at")),
            one.get("id"),
        )
        for one in recipes
    ]
    console().print(table(columns, rows) if rows else "no recipes: `cortex recipe save MODEL NAME`")


@app.command(epilog="Example: `cortex recipe show fast`")
def show(recipe: Recipe, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show a recipe with every field."""
    found = call(home, lambda api: api.call("GET", _path(recipe)))
    if as_json:
        print_json(found)
    else:
        console().print(details(found))


@app.command(epilog="Example: `cortex recipe patch fast --set context_size=32768 --set threads=null`")
def patch(
    recipe: Recipe,
    name: Annotated[str | None, typer.Option("--name", help="Another name.")] = None,
    description: Description = None,
    file: FileOption = None,
    settings: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a recipe; null puts a field's default back. Models made from it stay as they are."""
    body = given(name=name, description=description, fields=read_fields(file, settings, {}))
    _saved(call(home, lambda api: api.call("PATCH", _path(recipe), body)), "changed", as_json=as_json)


@app.command(epilog="Example: `cortex recipe use fast my-model --set replicas=2`")
def use(
    recipe: Recipe,
    name: Annotated[str, typer.Argument(help="Name of the new model.")],
    served_name: Annotated[str | None, typer.Option(help="Name clients ask for.", show_default="from NAME")] = None,
    file: FileOption = None,
    settings: SetOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a model from a recipe. It does not start by itself."""
    body = {"name": name, "overrides": read_fields(file, settings, {"served_model_name": served_name})}
    model = call(home, lambda api: api.call("POST", f"{_path(recipe)}/models", body))
    text = f"created {model.get('name')} ({model.get('id')})\nstart it with `cortex model start {model.get('name')}`"
    report(model, text, as_json=as_json)


@app.command(epilog="Example: `cortex recipe delete fast --yes`")
def delete(
    recipe: Recipe,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
) -> None:
    """Delete a recipe. Models made from it stay."""
    found = call(home, lambda api: api.call("GET", _path(recipe)))
    if not yes:
        typer.confirm(f"Delete the recipe {found.get('name')}?", abort=True)
    call(home, lambda api: api.call("DELETE", _path(str(found["id"]))))
    console().print(f"deleted {found.get('name')}", markup=False)


def _saved(recipe: Row, what: str, *, as_json: bool) -> None:
    report(recipe, f"{what} {recipe.get('name')} ({recipe.get('id')})", as_json=as_json)
