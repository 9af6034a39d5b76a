"""`cortex model why`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.commands.calls import call
from cortex_cli.commands.events import clock
from cortex_cli.commands.models import Model, path_to
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.output import STATE_COLOURS, console, duration, print_json
from cortex_cli.shapes import as_list, as_object

_STYLES = {"request": "bold", "decision": "yellow", "state": "cyan", "probe": "green"}
_BAD = ("container.failed", "upstream.unhealthy", "upstream.suspected", "placement.rejected")
_LOG_LINES = 5


def register(app: typer.Typer) -> None:
    """Add the command to `cortex model`."""
    app.command(epilog="Examples: `cortex model why my-model` · `cortex model why my-model --version 3 --json`")(why)


def why(
    model: Model,
    version: Annotated[
        int | None, typer.Option("--version", help="What followed from an older version.", min=1)
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why a model is in its state: who asked, what was decided and refused, what followed, and what to do next."""

    async def use(api: AdminApi) -> Row:
        path = await path_to(api, model, "why")
        return await api.call("GET", path if version is None else f"{path}?version={version}")

    found = call(home, use)
    if as_json:
        print_json(found)
        return
    out = console()
    out.print(Text(str(found.get("headline")), style=STATE_COLOURS.get(str(found.get("state")), "bold")))
    if found.get("next_step"):
        out.print(Text(f"-> {found['next_step']}"))
    root = as_object(found.get("root"))
    if root:
        out.print()
        out.print(tree(root))
    if found.get("omitted"):
        out.print(Text(f"({found['omitted']} events in between are left out)", style="dim"))
    for later in (as_object(item) for item in as_list(found.get("later"))):
        out.print(Text(f"later, {clock(later.get('at'))}: {later.get('sentence')}", style="dim"))


def tree(node: Mapping[str, Any]) -> Tree:
    """A node and what followed from it."""
    result = Tree(line(node))
    for child in as_list(node.get("children")):
        result.children.append(tree(as_object(child)))
    return result


def line(node: Mapping[str, Any]) -> Text:
    """Time, sentence, how long after its cause; below a failure the last words of the engine."""
    bad = str(node.get("type") or "").rpartition(".v")[0] in _BAD
    text = Text(f"{clock(node.get('at'))[:8]}  ", style="dim")
    text.append(str(node.get("sentence")), style="red" if bad else _STYLES.get(str(node.get("kind")), ""))
    after = node.get("after_s")
    if isinstance(after, (int, float)):
        text.append(f"  +{_precise(float(after))}", style="dim")
    details = as_object(node.get("details"))
    about = [str(details[name]) for name in ("address", "request_id") if details.get(name)]
    if node.get("kind") == "request" and about:
        text.append(f"  ({', '.join(about)})", style="dim")
    for said in as_list(details.get("log_tail"))[-_LOG_LINES:]:
        text.append(f"\n  | {said}", style="dim")
    return text


def _precise(seconds: float) -> str:
    return f"{max(0.0, seconds):.1f}s" if seconds < 60 else duration(seconds)
