"""`cortex system ...`."""

from typing import Annotated

import typer

from cortex_cli.adapters.admin_api import AdminApi, Row
from cortex_cli.commands.calls import call
from cortex_cli.commands.options import HomeOption, JsonOption
from cortex_cli.output import console, details, print_json, size, table

app = typer.Typer(
    no_args_is_help=True,
    help="The whole at a glance: what runs, how much is asked of it, on which hosts and GPUs.",
    rich_markup_mode="markdown",
)


@app.command(epilog="Example: `cortex system summary`")
def summary(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Models by state, endpoints by health, load and resources."""

    async def use(api: AdminApi) -> Row:
        return await api.call("GET", "/admin/system/summary")

    row = call(home, use)
    if as_json:
        print_json(row)
        return
    console().print(details(row))


@app.command(epilog="Examples: `cortex system throughput` · `cortex system throughput --window 60`")
def throughput(
    window: Annotated[int, typer.Option(help="How far back, seconds.", min=10, max=3600)] = 300,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Requests and tokens of the last minutes, by model."""

    async def use(api: AdminApi) -> Row:
        return await api.call("GET", f"/admin/system/throughput?window_s={window}")

    answer = call(home, use)
    if as_json:
        print_json(answer)
        return
    named = [*answer["models"].items(), ("all", answer["total"])]
    rows = [
        (name, row["requests"], row["failed"], row["requests_per_second"], row["tokens_per_second"], row["ttft_ms_p50"])
        for name, row in named
    ]
    console().print(table(("model", "requests", "failed", "requests/s", "tokens/s", "ttft ms"), rows))


@app.command(epilog="Example: `cortex system hosts`")
def hosts(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Hosts that engines run on."""

    async def use(api: AdminApi) -> list[Row]:
        return await api.rows("/admin/system/host/summary")

    items = call(home, use)
    if as_json:
        print_json(items)
        return
    rows = [
        (
            item["hostname"],
            item["runtime"],
            item["cpu_count"],
            size(item["memory_total"]),
            size(item["memory_available"]),
            item["gpus"],
            item["replicas"],
        )
        for item in items
    ]
    console().print(table(("host", "runtime", "cpus", "memory", "available", "gpus", "replicas"), rows))


@app.command(epilog="Example: `cortex system gpus`")
def gpus(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """GPUs, what is promised of them, and who runs there."""

    async def use(api: AdminApi) -> list[Row]:
        return await api.rows("/admin/system/gpus")

    items = call(home, use)
    if as_json:
        print_json(items)
        return
    rows = [
        (
            item["hostname"],
            item["index"],
            item["name"],
            size(item["memory_total"]),
            size(item["memory_free"]),
            size(item["memory_promised"]),
            len(item["replicas"]),
        )
        for item in items
    ]
    console().print(table(("host", "gpu", "name", "memory", "free", "promised", "replicas"), rows))
