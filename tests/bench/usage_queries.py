"""How fast usage is reported over ten million records: `python tests/bench/usage_queries.py [--rows N] [--explain]`.

Makes a Postgres of its own, fills 13 months (50 models, 500 keys, 100 users, 10 organisations, Zipf-like), sums days and
months as the registry does, asks what the console asks through the admin API's routes, prints a table, and deletes all.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
from pydantic import SecretStr

from cortex_contracts.base import KeyId, ModelId
from cortex_contracts.events import UsageRecordedV1
from cortex_kit.clock import SystemClock
from cortex_registry.adapters.migrations import migrate
from cortex_registry.adapters.postgres import Connection, Database
from cortex_registry.adapters.records import Row
from cortex_registry.adapters.usage import PostgresUsage
from cortex_registry.adapters.usage_reports import PostgresUsageReports
from cortex_registry.adapters.usage_upkeep import PostgresUsageUpkeep
from cortex_registry.domain.identity import ROOT, Identity
from cortex_registry.entrypoints.http import create_app
from cortex_registry.entrypoints.routes.usage import UsageRoutes
from cortex_registry.entrypoints.routes.usage_export import UsageExportRoutes
from cortex_registry.entrypoints.routes.usage_latency import UsageLatencyRoutes
from cortex_registry.handlers.usage_upkeep import UpkeepRules, UsageUpkeep
from cortex_testing.servers import PostgresServer, create_database

LIMIT_MS = 300
DAYS = 395
INDEXES = ("idx_usage_by_model", "idx_usage_by_key", "idx_usage_by_user", "idx_usage_by_org", "idx_usage_failed")
FILL = """
INSERT INTO usage
SELECT
    'r' || lpad(i::text, 12, '0'), uuid('01890000-0000-7000-8000-' || lpad(k::text, 12, '0'))::text,
    uuid('01890000-0000-7000-9000-' || lpad((k % 100)::text, 12, '0'))::text,
    uuid('01890000-0000-7000-a000-' || lpad((k % 10)::text, 12, '0'))::text,
    CASE WHEN dice < 0.98 THEN uuid('01890000-0000-7000-b000-' || lpad(m::text, 12, '0'))::text END, 'model-' || m,
    CASE WHEN dice < 0.98 THEN CASE WHEN m % 2 = 0 THEN 'vllm' ELSE 'llamacpp' END END,
    CASE WHEN dice < 0.98 THEN 'replica' END, CASE WHEN m % 7 = 0 THEN 'embed' ELSE 'generate' END,
    '/v1/chat/completions', i % 2 = 0,
    CASE WHEN dice < 0.96 THEN 200 WHEN dice < 0.97 THEN 502 WHEN dice < 0.98 THEN 400 ELSE 429 END,
    CASE WHEN dice < 0.95 THEN 'completed' WHEN dice < 0.96 THEN 'client_disconnected'
         WHEN dice < 0.98 THEN 'upstream_error' ELSE 'rejected' END,
    (random() * 4000)::integer, (random() * 1000)::integer, (random() * 500)::integer, dice > 0.94 AND dice < 0.96,
    CASE WHEN dice < 0.96 THEN exp(5 + random_normal()) END, exp(7 + 1.2 * random_normal()),
    $1::timestamptz + i * $2::interval
FROM (
    SELECT i, floor(exp(random() * ln(501)))::integer AS k, floor(exp(random() * ln(51)))::integer AS m, random() AS dice
    FROM generate_series($3::bigint, $4::bigint) i
) one
"""
SUM = """
INSERT INTO usage_series (key_id, model, model_id, user_id, org_id, engine_type, task)
SELECT DISTINCT key_id, model, model_id, user_id, org_id, engine_type, task FROM usage_labelled;
INSERT INTO usage_hourly
SELECT date_trunc('hour', u.started_at, 'UTC'), s.id, u.status, u.outcome, count(*), sum(u.prompt_tokens),
    sum(u.cached_tokens), sum(u.completion_tokens), count(*) FILTER (WHERE u.estimated), sum(u.duration_ms),
    coalesce(sum(u.ttft_ms), 0), count(u.ttft_ms)
FROM usage_labelled u JOIN usage_series s USING (key_id, model, model_id, user_id, org_id, engine_type, task)
GROUP BY 1, 2, 3, 4;
INSERT INTO usage_periods (grain, period)
SELECT grain, date_trunc(grain, period, 'UTC')
FROM usage_hourly CROSS JOIN (VALUES ('day'), ('month')) grains (grain) GROUP BY 1, 2;
"""
KEY = "01890000-0000-7000-8000-000000000001"
RARE_KEY = "01890000-0000-7000-8000-000000000499"
Timed = tuple[str, float, float, str]


class Everybody:
    async def authenticate(self, headers: Any, method: str) -> Identity | None:
        return ROOT


class Watched(PostgresUsageReports):
    """Remembers its statements, to explain the slow ones."""

    statements: list[tuple[str, list[Any]]]

    async def _fetch(self, connection: Connection, statement: tuple[str, list[Any]]) -> Sequence[Row]:
        self.statements.append(statement)
        return await super()._fetch(connection, statement)


def say(text: str, since: float) -> None:
    print(f"# {time.perf_counter() - since:7.1f} s  {text}", flush=True)


async def fill(dsn: str, rows: int) -> None:
    connection = await asyncpg.connect(dsn, server_settings={"timezone": "UTC", "work_mem": "256MB"})
    started = time.perf_counter()
    await migrate(connection)
    created = {name: await connection.fetchval("SELECT pg_get_indexdef($1::regclass)", name) for name in INDEXES}
    for name in INDEXES:
        await connection.execute(f"DROP INDEX {name}")
    now = datetime.now(UTC)
    first, step = now - timedelta(days=DAYS), timedelta(days=DAYS) / rows
    for month in range(15):
        await connection.execute("SELECT usage_make_month($1::date)", (first + timedelta(days=28 * month + 1)).date())
        await connection.execute("SELECT usage_make_month($1::date)", (first + timedelta(days=28 * month)).date())
    chunk = 500_000
    for start in range(0, rows, chunk):
        await connection.execute(FILL, first, step, start, min(rows, start + chunk) - 1, timeout=900)
        say(f"{min(rows, start + chunk):,} records", started)
    for definition in created.values():
        await connection.execute(definition.replace(" ON ONLY ", " ON "), timeout=900)
    say("indexes", started)
    await connection.execute(SUM, timeout=1800)
    say("hours summed", started)
    await connection.execute("VACUUM ANALYZE", timeout=900)
    say("vacuumed", started)
    await connection.close()


async def measure(what: str, ask: Callable[[], Awaitable[httpx.Response]], runs: int) -> Timed:
    times: list[float] = []
    answer = await ask()  # the first one warms caches
    for _ in range(runs):
        started = time.perf_counter()
        answer = await ask()
        times.append((time.perf_counter() - started) * 1000)
    if answer.status_code != 200:
        raise RuntimeError(f"{what}: {answer.status_code} {answer.text[:500]}")
    return what, statistics.median(times), max(times), ""


def questions() -> list[tuple[str, str, dict[str, Any]]]:
    asked: list[tuple[str, str, dict[str, Any]]] = []
    windows = {"24 h": 24, "30 d": 720, "12 months": 8760}
    dimensions = ("model", "key", "user", "org", "engine", "task", "status", "outcome", "model,key", "user,status")
    for name, hours in windows.items():
        asked += [
            (f"aggregate by {group}, {name}", "/usage/aggregate", {"hours": hours, "group_by": group})
            for group in dimensions
        ]
    for name, hours in windows.items():
        for what, filters in (
            ("one model by key", {"model": "model-1", "group_by": "key"}),
            ("one key by model", {"key": KEY, "group_by": "model"}),
            ("5xx by model", {"status": "5xx", "group_by": "model"}),
        ):
            asked.append((f"aggregate {what}, {name}", "/usage/aggregate", {"hours": hours, **filters}))
    for what, params in (
        ("minutes of 24 h", {"bucket": "minute", "hours": 24}),
        ("hours of 24 h", {"bucket": "hour", "hours": 24}),
        ("hours of 30 d", {"bucket": "hour", "hours": 720}),
        ("hours of 30 d by model", {"bucket": "hour", "hours": 720, "group_by": "model"}),
        ("days of 30 d by key", {"bucket": "day", "hours": 720, "group_by": "key"}),
        ("days of 12 months", {"bucket": "day", "hours": 8760}),
        ("days of 12 months by model", {"bucket": "day", "hours": 8760, "group_by": "model"}),
        ("days of 12 months, one key", {"bucket": "day", "hours": 8760, "key": KEY}),
        (
            "days of 12 months, one model by user",
            {"bucket": "day", "hours": 8760, "model": "model-1", "group_by": "user"},
        ),
    ):
        asked.append((f"series, {what}", "/usage/series", params))
    for name, hours in windows.items():
        for group in (None, "model", "key", "user"):
            params = {"hours": hours} | ({"group_by": group} if group else {})
            asked.append((f"latency by {group or 'nothing'}, {name}", "/usage/latency", params))
    asked.append(("ttft by model, 30 d", "/usage/ttft", {"hours": 720, "group_by": "model"}))
    asked.append(
        ("latency of one model by key, 24 h", "/usage/latency", {"hours": 24, "model": "model-1", "group_by": "key"})
    )
    asked.append(
        ("latency of one model by key, 7 d", "/usage/latency", {"hours": 168, "model": "model-1", "group_by": "key"})
    )
    for what, params in (
        ("page 1", {}),
        ("page 1, one model", {"model": "model-1"}),
        ("page 1, a rare key", {"key": RARE_KEY}),
        ("page 1, 5xx", {"status": "5xx"}),
        ("page 1, a status that never was", {"status": "503"}),
        ("page 1, a model that never was", {"model": "nothing"}),
        ("page 1, one user and 5xx", {"user": "01890000-0000-7000-9000-000000000007", "status": "5xx"}),
    ):
        asked.append((f"list, {what}", "/usage", params))
    return asked


async def deep_page(client: httpx.AsyncClient, rows: int, runs: int) -> Timed:
    middle = datetime.now(UTC) - timedelta(days=DAYS) * 0.6
    first = (await client.get("/usage", params={"until": middle.isoformat()})).json()
    return await measure(
        f"list, the page after record {int(rows * 0.6):,}",
        lambda: client.get("/usage", params={"after": first["next"]}),
        runs,
    )


async def export(client: httpx.AsyncClient, form: str, limit: int) -> Timed:
    started = time.perf_counter()
    size = 0
    async with client.stream("GET", "/usage/export", params={"format": form, "hours": 8760, "limit": limit}) as answer:
        async for chunk in answer.aiter_bytes():
            size += len(chunk)
    seconds = time.perf_counter() - started
    return (
        f"export of {limit:,} records as {form}",
        0,
        0,
        f"{limit / seconds:,.0f} records/s, {size / seconds / 1e6:.0f} MB/s",
    )


async def insert(database: Database, count: int) -> Timed:
    chance, usage, now = random.Random(1), PostgresUsage(database), datetime.now(UTC)
    records = [
        UsageRecordedV1(
            request_id=f"new{number}",
            key_id=KeyId(f"01890000-0000-7000-8000-{chance.randrange(500):012}"),
            model=f"model-{chance.randrange(50)}",
            model_id=ModelId("x"),
            route="/v1/chat/completions",
            stream=False,
            status=200,
            outcome="completed",
            duration_ms=5,
            started_at=now,
        )
        for number in range(count)
    ]
    started = time.perf_counter()
    for start in range(0, count, 200):
        await usage.insert(records[start : start + 200])
    seconds = time.perf_counter() - started
    return "insert by 200, sums of the hour included", 0, 0, f"{count / seconds:,.0f} records/s"


async def explain(dsn: str, what: str, statements: Sequence[tuple[str, list[Any]]]) -> None:
    connection = await asyncpg.connect(dsn, server_settings={"timezone": "UTC", "jit": "off", "work_mem": "64MB"})
    for text, values in statements:
        print(f"\n## {what}")
        for row in await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {text}", *values, timeout=120):
            print(row[0])
    await connection.close()


async def sizes(dsn: str) -> str:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(
        """
        SELECT split_part(relname, '_2', 1) AS name, pg_size_pretty(sum(pg_total_relation_size(oid))) AS size,
            sum(reltuples)::bigint AS tuples
        FROM pg_class WHERE relkind = 'r' AND relname LIKE 'usage%' GROUP BY 1 ORDER BY 1
        """
    )
    await connection.close()
    return ", ".join(f"{row['name']} {row['tuples']:,} rows, {row['size']}" for row in rows)


async def bench(dsn: str, arguments: argparse.Namespace) -> None:
    if not arguments.dsn:
        await fill(dsn, arguments.rows)
    database = Database(SecretStr(dsn), size=4, acquire_timeout_s=10, command_timeout_s=600)
    await database.open()
    watching = asyncio.ensure_future(database.run())
    while database.readiness() is not None:
        await asyncio.sleep(0.05)
    clock = SystemClock()
    started = time.perf_counter()
    await UsageUpkeep(PostgresUsageUpkeep(database), clock, UpkeepRules(60, timedelta(days=400), None)).once()
    print(f"# days and months summed in {time.perf_counter() - started:.0f} s", flush=True)
    connection = await asyncpg.connect(dsn)
    await connection.execute("VACUUM ANALYZE", timeout=900)
    await connection.close()
    print(f"# {await sizes(dsn)}", flush=True)
    reports = Watched(database, clock, retention=timedelta(days=400), timeout_s=60)
    routers = [UsageRoutes(reports, clock).router(), UsageLatencyRoutes(reports, clock).router()]
    routers.append(UsageExportRoutes(reports, clock, at_once=1).router())
    app = create_app(routers, readiness={}, authenticators=[Everybody()], max_body_bytes=1000)
    found: list[Timed] = []
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://b/admin", timeout=300
    ) as client:
        for what, path, params in questions():
            reports.statements = []
            timed = await measure(
                what, lambda path=path, params=params: client.get(path, params=params), arguments.runs
            )
            found.append(timed)
            print(f"| {timed[0]} | {timed[1]:.0f} | {timed[2]:.0f} |", flush=True)
            if arguments.explain and timed[1] > LIMIT_MS:
                each = len(reports.statements) // (arguments.runs + 1)
                await explain(dsn, what, reports.statements[:each])
        reports.statements = []
        found.append(await deep_page(client, arguments.rows, arguments.runs))
        print(f"| {found[-1][0]} | {found[-1][1]:.0f} | {found[-1][2]:.0f} |", flush=True)
        for form in ("csv", "jsonl"):
            what, *_, rate = await export(client, form, min(arguments.rows, 200_000))
            print(f"| {what} | {rate} | |", flush=True)
    what, *_, rate = await insert(database, 20_000)
    print(f"| {what} | {rate} | |", flush=True)
    slow = [what for what, median, *_ in found if median > LIMIT_MS]
    print(f"# {len(found)} queries, {len(slow)} over {LIMIT_MS} ms: {slow}")
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--explain", action="store_true", help="print the plan of what is too slow")
    parser.add_argument("--dsn", help="measure a database that was filled before, e.g. on a disk of yours")
    arguments = parser.parse_args()
    if arguments.dsn:
        asyncio.run(bench(arguments.dsn, arguments))
        return
    server = PostgresServer()
    server.start()
    try:
        asyncio.run(bench(asyncio.run(create_database(server)), arguments))
    finally:
        server.close()


if __name__ == "__main__":
    main()
