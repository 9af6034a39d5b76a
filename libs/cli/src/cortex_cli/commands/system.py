"""`cortex system ...`."""

from collections.abc import Callable, Sequence
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


@app.command(epilog="Example: `cortex system images`")
def images(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Engine images by host: the defaults, those that models name, and other tags of the same repositories."""
    items = call(home, lambda api: api.rows("/admin/system/docker-images"))
    if as_json:
        print_json(items)
        return
    rows = [
        (one["reference"], item["node"], "yes" if one["present"] else "no", one["default_of"] or "", size(one["size"]))
        for item in items
        for one in item["images"]
    ]
    if rows:
        console().print(table(("image", "host", "there", "default of", "size"), rows))
    for item in items:
        if item["reason"]:
            console().print(f"{item['node']}: {item['reason']}", markup=False)


@app.command(epilog="Example: `cortex system capabilities`")
def capabilities(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """What is possible here, and what is not and why."""
    answer = call(home, lambda api: api.call("GET", "/admin/system/capabilities"))
    if as_json:
        print_json(answer)
        return
    engines = [
        (f"engine {one['engine_type']}", "yes" if one["enabled"] else "no", "" if one["enabled"] else "CORTEX_ENGINES")
        for one in answer["engines"]
    ]
    features = [(one["name"], "yes" if one["available"] else "no", one["reason"] or "") for one in answer["features"]]
    console().print(table(("what", "possible", "why not"), [*engines, *features]))


@app.command(epilog="Example: `cortex system trends --minutes 60`")
def trends(
    minutes: Annotated[int, typer.Option(help="How far back.", min=1, max=1440)] = 15,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Processor, memory and GPUs of each host lately: lowest, mean and highest."""
    answer = call(home, lambda api: api.call("GET", f"/admin/system/host/trends?minutes={minutes}"))
    if as_json:
        print_json(answer)
        return
    rows: list[tuple[object, ...]] = []
    for item in answer["items"]:
        points: list[Row] = item["points"]
        cpu = [point["cpu_percent"] for point in points if point["cpu_percent"] is not None]
        rows.append((item["hostname"], "cpu %", *_spread(cpu, lambda value: f"{value:.0f}")))
        used = [item["memory_total"] - point["memory_available"] for point in points]
        rows.append((item["hostname"], "memory used", *_spread(used, lambda value: size(int(value)))))
        for index in sorted({gpu["index"] for point in points for gpu in point["gpus"]}):
            own = [gpu for point in points for gpu in point["gpus"] if gpu["index"] == index]
            memory = [gpu["memory_total"] - gpu["memory_free"] for gpu in own]
            rows.append((item["hostname"], f"gpu {index} memory", *_spread(memory, lambda value: size(int(value)))))
    columns = ("host", "what", "lowest", "mean", "highest", "last")
    console().print(table(columns, rows) if rows else "nothing recorded yet")


def _spread(values: Sequence[float], show: Callable[[float], str]) -> tuple[str, ...]:
    if not values:
        return ("-",) * 4
    return tuple(show(value) for value in (min(values), sum(values) / len(values), max(values), values[-1]))
