"""Usage reports, sums and retention on a real Postgres, compared with what plain Python says of the same records."""

import asyncio
import csv
import io
import itertools
import json
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from cortex_contracts.base import KeyId, ModelId
from cortex_contracts.events import UsageRecordedV1
from cortex_contracts.rights import Role
from cortex_kit.clock import SystemClock
from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.usage import PostgresUsage
from cortex_registry.adapters.usage_reports import PostgresUsageReports
from cortex_registry.adapters.usage_upkeep import PostgresUsageUpkeep
from cortex_registry.domain.identity import ROOT, CredentialKind, Identity
from cortex_registry.domain.usage_latency import RELATIVE_ERROR
from cortex_registry.entrypoints.http import create_app
from cortex_registry.entrypoints.routes import usage_export
from cortex_registry.entrypoints.routes.usage import UsageRoutes
from cortex_registry.entrypoints.routes.usage_export import UsageExportRoutes
from cortex_registry.entrypoints.routes.usage_latency import UsageLatencyRoutes
from cortex_registry.handlers.usage_upkeep import UpkeepRules, UsageUpkeep

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

NOW = datetime(2026, 5, 17, 10, 30, 15, tzinfo=UTC)
RETENTION = timedelta(days=100)
KEYS = [f"01890000-0000-7000-8000-0000000000{number:02x}" for number in range(5)]
USER, ORG = "01890000-0000-7000-8000-0000000000b1", "01890000-0000-7000-8000-0000000000a1"


class At:
    """Clock that stands still."""

    moment = NOW

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return SystemClock().monotonic()


class Everybody:
    """Authenticator: an administrator, or with a token a user."""

    async def authenticate(self, headers: Any, method: str) -> Identity | None:
        user = headers.get("authorization")
        return Identity(CredentialKind.TOKEN, "alice", Role.VIEWER, user) if user else ROOT


@dataclass
class Bench:
    """The parts under test, and what was put in."""

    usage: PostgresUsage
    reports: PostgresUsageReports
    upkeep: UsageUpkeep
    client: httpx.AsyncClient
    clock: At
    records: list[UsageRecordedV1] = field(default_factory=list)

    async def add(self, *records: UsageRecordedV1) -> int:
        self.records += [one for one in records if one not in self.records]
        return await self.usage.insert(records)

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def pool(migrated_dsn: str) -> AsyncIterator[Database]:
    made = Database(SecretStr(migrated_dsn), size=10, acquire_timeout_s=10, command_timeout_s=30)
    await made.open()
    watching = asyncio.ensure_future(made.run())
    while made.readiness() is not None:
        await asyncio.sleep(0.01)
    yield made
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await made.close()


@pytest.fixture
async def bench(pool: Database) -> AsyncIterator[Bench]:
    clock = At()
    reports = PostgresUsageReports(pool, clock, retention=RETENTION, timeout_s=20)
    upkeep = UsageUpkeep(PostgresUsageUpkeep(pool), clock, UpkeepRules(60, RETENTION, None))
    routers = [
        UsageRoutes(reports, clock).router(),
        UsageLatencyRoutes(reports, clock).router(),
        UsageExportRoutes(reports, clock, at_once=1).router(),
    ]
    app = create_app(routers, readiness={}, authenticators=[Everybody()], max_body_bytes=1000)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test/admin") as client:
        yield Bench(PostgresUsage(pool), reports, upkeep, client, clock)


def record(number: int, at: datetime, **changes: Any) -> UsageRecordedV1:
    values: dict[str, Any] = {
        "request_id": f"r{number:06}",
        "key_id": KeyId(KEYS[0]),
        "model": "m",
        "model_id": ModelId("model"),
        "engine_type": "llamacpp",
        "route": "/v1/chat/completions",
        "stream": False,
        "status": 200,
        "outcome": "completed",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "duration_ms": 100.0,
        "started_at": at,
    }
    return UsageRecordedV1(**(values | changes))


def crowd(count: int, since: datetime, until: datetime, seed: int = 1) -> list[UsageRecordedV1]:
    """Records of all kinds, some at the very edges of hours, days and months."""
    chance = random.Random(seed)
    edges = [
        since,
        datetime(2026, 4, 1, tzinfo=UTC),
        datetime(2026, 4, 1, tzinfo=UTC) - timedelta(microseconds=1),
        datetime(2026, 3, 29, 1, 30, tzinfo=UTC),  # clocks of Europe jump here
        datetime(2026, 5, 16, tzinfo=UTC),
        until - timedelta(microseconds=1),
    ]
    records: list[UsageRecordedV1] = []
    for number in range(count):
        at = edges[number] if number < len(edges) else since + (until - since) * chance.random()
        status, outcome = chance.choice(
            [(200, "completed")] * 8 + [(200, "client_disconnected"), (502, "upstream_error"), (429, "rejected")]
        )
        model = chance.choice(["small", "big", "huge"])
        lost = status == 429
        records.append(
            record(
                number,
                at,
                key_id=KeyId(chance.choice(KEYS)),
                user_id=chance.choice([None, USER]),
                org_id=chance.choice([None, ORG]),
                model=f"guess {number}" if lost else model,
                model_id=None if lost else ModelId(f"id of {model}"),
                engine_type=None if lost else chance.choice(["vllm", "llamacpp"]),
                task=chance.choice(["generate", "embed"]),
                status=status,
                outcome=outcome,
                prompt_tokens=chance.randrange(100),
                cached_tokens=chance.randrange(10),
                completion_tokens=chance.randrange(50),
                estimated=chance.random() < 0.1,
                duration_ms=round(math.exp(chance.gauss(6, 1.5)), 3),
                ttft_ms=round(math.exp(chance.gauss(4, 1)), 3) if chance.random() < 0.7 else None,
            )
        )
    return records


LABELS: dict[str, Callable[[UsageRecordedV1], Any]] = {
    "model": lambda one: one.model if one.model_id is not None else None,
    "key": lambda one: one.key_id,
    "user": lambda one: one.user_id,
    "org": lambda one: one.org_id,
    "engine": lambda one: one.engine_type,
    "task": lambda one: one.task,
    "status": lambda one: one.status,
    "outcome": lambda one: one.outcome,
    "hour": lambda one: one.started_at.replace(minute=0, second=0, microsecond=0),
    "day": lambda one: one.started_at.replace(hour=0, minute=0, second=0, microsecond=0),
}
FIELDS = {"key": "key_id", "user": "user_id", "org": "org_id", "hour": "at", "day": "at"}


def expected(records: Sequence[UsageRecordedV1], group: Sequence[str]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    sums: dict[tuple[Any, ...], list[int]] = {}
    for one in records:
        label = tuple(LABELS[name](one) for name in group)
        row = sums.setdefault(label, [0] * 6)
        for index, value in enumerate(
            (1, one.outcome == "completed", one.prompt_tokens, one.cached_tokens, one.completion_tokens, one.estimated)
        ):
            row[index] += int(value)
    return {label: tuple(row) for label, row in sums.items()}


def numbers(row: dict[str, Any]) -> tuple[int, ...]:
    names = ("requests", "completed", "prompt_tokens", "cached_tokens", "completion_tokens", "estimated")
    return tuple(row[name] for name in names)


def answered(body: dict[str, Any], group: Sequence[str]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    def value(row: dict[str, Any], name: str) -> Any:
        found = row[FIELDS.get(name, name)]
        return datetime.fromisoformat(found) if name in ("hour", "day") else found

    return {tuple(value(row, name) for name in group): numbers(row) for row in body["items"]}


def within(records: Sequence[UsageRecordedV1], since: datetime, until: datetime) -> list[UsageRecordedV1]:
    return [one for one in records if since <= one.started_at < until]


WINDOWS = [
    (NOW - timedelta(days=80), NOW),
    (NOW - timedelta(hours=24), NOW),
    (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)),
    (datetime(2026, 3, 31, 23, 59, 59, 999999, tzinfo=UTC), datetime(2026, 4, 2, 0, 0, 1, tzinfo=UTC)),
    (datetime(2026, 5, 3, 7, 7, 7, tzinfo=UTC), datetime(2026, 5, 3, 7, 59, tzinfo=UTC)),
]
GROUPS = [(name,) for name in LABELS] + [
    ("model", "key"),
    ("user", "status", "day"),
    ("org", "engine", "task", "outcome"),
]


@pytest.mark.parametrize("summed", [False, True], ids=["before the days are summed", "after"])
async def test_breakdowns_are_exact_for_any_window_whatever_is_summed_already(bench: Bench, summed: bool) -> None:
    await bench.add(*crowd(1500, NOW - timedelta(days=80), NOW))
    if summed:
        await bench.upkeep.once()
    for since, until in WINDOWS:
        chosen = within(bench.records, since, until)
        for group in GROUPS:
            body = await bench.get(
                "/usage/aggregate",
                since=since.isoformat(),
                until=until.isoformat(),
                group_by=",".join(group),
                limit=9999,
            )
            assert answered(body, group) == expected(chosen, group), (since, until, group)
            assert numbers(body["totals"]) == expected(chosen, ()).get((), (0,) * 6)
    since, until = WINDOWS[0]
    for params, keep in (
        ({"model": "big"}, lambda one: one.model == "big"),
        ({"key": KEYS[1]}, lambda one: one.key_id == KEYS[1]),
        ({"status": "5xx", "group_by": "key"}, lambda one: one.status >= 500),
        ({"status": "4XX", "group_by": "status"}, lambda one: 400 <= one.status < 500),
        ({"outcome": "rejected"}, lambda one: one.outcome == "rejected"),
        (
            {"user": USER, "model": "small", "task": "embed"},
            lambda one: (one.user_id, one.model, one.task) == (USER, "small", "embed"),
        ),
        ({"org_id": ORG, "engine": "vllm"}, lambda one: (one.org_id, one.engine_type) == (ORG, "vllm")),
    ):
        body = await bench.get("/usage/aggregate", since=since.isoformat(), until=until.isoformat(), **params)
        wanted = expected([one for one in bench.records if keep(one)], ())[()]
        assert numbers(body["totals"]) == wanted, params
    top = await bench.get("/usage/aggregate", since=since.isoformat(), until=until.isoformat(), group_by="key", limit=2)
    assert [row["requests"] for row in top["items"]] == sorted(
        Counter(one.key_id for one in bench.records).values(), reverse=True
    )[:2]
    assert top["totals"]["requests"] == 1500


@pytest.mark.parametrize("summed", [False, True], ids=["before the days are summed", "after"])
async def test_percentiles_are_within_the_stated_error(bench: Bench, summed: bool) -> None:
    await bench.add(*crowd(3000, NOW - timedelta(days=80), NOW))
    if summed:
        await bench.upkeep.once()
    for since, until in WINDOWS[:3]:
        chosen = [one for one in within(bench.records, since, until) if one.outcome == "completed"]
        for path, measure in (("latency", lambda one: one.duration_ms), ("ttft", lambda one: one.ttft_ms)):
            for group in (None, "model", "key", "user", "task"):
                params = {"since": since.isoformat(), "until": until.isoformat()} | (
                    {"group_by": group} if group else {}
                )
                body = await bench.get(f"/usage/{path}", **params)
                assert body["relative_error"] == RELATIVE_ERROR
                assert sum(row["count"] for row in body["items"]) == sum(measure(one) is not None for one in chosen)
                for row in body["items"]:
                    values = sorted(
                        value
                        for one in chosen
                        if (value := measure(one)) is not None and (group is None or LABELS[group](one) == row["value"])
                    )
                    assert row["count"] == len(values)
                    if not values:
                        assert row["p50"] is row["avg"] is None
                        continue
                    for name, q in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
                        exact = values[math.ceil(round(q * len(values), 6)) - 1]
                        assert row[name] == pytest.approx(exact, rel=RELATIVE_ERROR + 1e-3, abs=1)
                    assert row["avg"] == pytest.approx(sum(values) / len(values), rel=RELATIVE_ERROR, abs=1)
    mixed = await bench.get("/usage/latency", hours=24 * 30, model="big", group_by="key")
    since = NOW - timedelta(days=30)
    wanted = Counter(
        one.key_id for one in within(bench.records, since, NOW) if one.model == "big" and one.outcome == "completed"
    )
    assert {row["value"]: row["count"] for row in mixed["items"]} == dict(wanted)
    refused = await bench.client.get("/usage/latency", params={"hours": 24 * 60, "model": "big", "group_by": "key"})
    assert (refused.status_code, refused.json()["code"]) == (422, "window_too_long")


async def test_a_series_has_a_point_for_every_step_and_loses_nothing(bench: Bench) -> None:
    await bench.add(*crowd(800, NOW - timedelta(days=40), NOW))
    await bench.upkeep.once()
    for bucket, since in (
        ("day", NOW - timedelta(days=45)),
        ("hour", NOW - timedelta(days=4)),
        ("minute", NOW - timedelta(hours=20)),
    ):
        body = await bench.get("/usage/series", bucket=bucket, since=since.isoformat())
        [line] = body["items"]
        steps = [datetime.fromisoformat(point["at"]) for point in line["points"]]
        width = {"day": timedelta(days=1), "hour": timedelta(hours=1), "minute": timedelta(minutes=1)}[bucket]
        assert steps[0] == datetime.fromisoformat(body["since"]) <= since < steps[1]
        assert {later - sooner for sooner, later in itertools.pairwise(steps)} == {width}
        for at, point in zip(steps, line["points"], strict=True):
            assert point["requests"] == len(within(bench.records, at, at + width)), (bucket, at)
    grouped = await bench.get("/usage/series", bucket="day", hours=24 * 30, group_by="model", limit=2)
    assert len(grouped["items"]) == 2
    assert {len(line["points"]) for line in grouped["items"]} == {31}
    too_many = await bench.client.get("/usage/series", params={"bucket": "minute", "hours": 48})
    assert too_many.status_code == 422
    assert (
        await bench.get("/usage/series", bucket="hour", since="2030-01-01T00:00:00Z", until="2030-01-01T02:00:00Z")
    )["items"][0]["points"][1]["requests"] == 0


async def test_pages_of_records_hold_each_once_also_where_moments_are_equal(bench: Bench) -> None:
    same = NOW - timedelta(days=3)
    await bench.add(*(record(number, same) for number in range(25)), *crowd(200, same, NOW, seed=7)[25:])
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 7}
    while True:
        body = await bench.get("/usage", **params)
        seen += [item["request_id"] for item in body["items"]]
        assert ("after" in params) == (body["totals"] is None)
        if body["next"] is None:
            break
        params["after"] = body["next"]
    ordered = sorted(bench.records, key=lambda one: (one.started_at, one.request_id), reverse=True)
    assert seen == [one.request_id for one in ordered]
    failed = await bench.get("/usage", status="5xx", limit=1000)
    assert {item["status"] for item in failed["items"]} == {502}
    assert failed["totals"]["requests"] == len(failed["items"]) == sum(one.status == 502 for one in bench.records)
    named = await bench.get("/usage", model="id of big", limit=1000)
    assert named["items"] == []  # not an id's shape: a name
    guessed = next(one for one in bench.records if one.model_id is None)
    assert [item["request_id"] for item in (await bench.get("/usage", model=guessed.model))["items"]] == [
        guessed.request_id
    ]


async def test_a_record_counts_once_however_often_and_by_whomever_it_is_inserted(
    bench: Bench, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """Two registries (two stores) get the same batches at once, in other orders, again and again."""
    records = crowd(600, NOW - timedelta(days=50), NOW)
    batches = [records[start : start + 50] for start in range(0, 600, 25)]
    chance = random.Random(3)

    async def insert_all() -> int:
        mine = [list(batch) for batch in batches]
        chance.shuffle(mine)
        new = 0
        for batch in mine:
            chance.shuffle(batch)
            new += await bench.usage.insert(batch)
        return new

    counts = await asyncio.gather(*(insert_all() for _ in range(4)), bench.upkeep.once())
    assert sum(count or 0 for count in counts) == 600
    assert await database.fetchval("SELECT count(*) FROM usage") == 600
    assert await database.fetchval("SELECT sum(requests) FROM usage_hourly") == 600
    await bench.upkeep.once()
    assert await database.fetchval("SELECT count(*) FROM usage_periods WHERE NOT clean") == 2  # today, this month
    midnight = NOW.replace(hour=0, minute=0, second=0)
    over = len(within(records, NOW - timedelta(days=99), midnight))
    assert await database.fetchval("SELECT sum(requests) FROM usage_daily") == over
    assert (
        await database.fetchval("SELECT sum(requests) FROM usage_summaries WHERE dimension='all' AND grain='day'")
        == over
    )
    body = await bench.get("/usage", limit=1)
    assert body["totals"]["requests"] == 600


async def test_a_late_record_is_counted_at_once_and_its_day_is_summed_again(bench: Bench, database: Any) -> None:
    late = datetime(2026, 4, 30, 23, 59, 59, 999999, tzinfo=UTC)
    await bench.add(record(1, late), record(2, NOW))
    await bench.upkeep.once()
    await bench.add(record(3, late, key_id=KeyId(KEYS[1])))
    april = {"since": "2026-04-01T00:00:00Z", "until": "2026-05-01T00:00:00Z"}
    for _ in range(2):
        body = await bench.get("/usage/aggregate", **april, group_by="key")
        assert {row["key_id"]: row["requests"] for row in body["items"]} == {KEYS[0]: 1, KEYS[1]: 1}
        latency = await bench.get("/usage/latency", **april)
        assert latency["items"][0]["count"] == 2
        await bench.upkeep.once()
    assert await database.fetchval("SELECT sum(requests) FROM usage_monthly") == 2


async def test_old_months_are_dropped_whole_and_their_sums_stay(bench: Bench, database: Any) -> None:
    old, kept = datetime(2026, 2, 10, 12, 30, tzinfo=UTC), datetime(2026, 5, 10, tzinfo=UTC)
    await bench.add(record(1, old), record(2, old + timedelta(hours=3)), record(3, kept))
    bench.clock.moment = datetime(2026, 6, 8, tzinfo=UTC)  # minus 100 days: 28 February
    await bench.upkeep.once()
    assert await database.fetchval("SELECT count(*) FROM usage") == 3
    bench.clock.moment = datetime(2026, 6, 10, tzinfo=UTC)  # 2 March
    await bench.upkeep.once()
    assert [row["request_id"] for row in await database.fetch("SELECT * FROM usage")] == ["r000003"]
    assert await database.fetchval("SELECT to_regclass('usage_202602')") is None
    assert await database.fetchval("SELECT to_regclass('usage_202608')") is not None
    window = {"since": "2026-02-10T12:45:00Z", "until": "2026-06-01T00:00:00Z"}
    body = await bench.get("/usage/aggregate", **window, group_by="model")
    assert body["totals"]["requests"] == 3
    assert body["since"] == "2026-02-10T00:00:00Z"  # the records that could tell 12:45 are gone
    assert (await bench.get("/usage/latency", **window))["items"][0]["count"] == 3


async def test_an_export_holds_every_record_and_no_formula(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_export, "PAGE", 700)
    tricky = ['=cmd|"/c calc"!A1', "+1", "-1", "@x", "\tx", 'a,"b"\r\nc', "ü"]
    await bench.add(
        *(record(number, NOW - timedelta(hours=1), model=model, model_id=None) for number, model in enumerate(tricky)),
        *crowd(2500, NOW - timedelta(hours=20), NOW - timedelta(hours=2), seed=5)[10:],
    )
    answer = await bench.client.get("/usage/export")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    chosen = within(bench.records, NOW - timedelta(hours=24), NOW)
    assert [row["request_id"] for row in rows] == [
        one.request_id for one in sorted(chosen, key=lambda one: (one.started_at, one.request_id), reverse=True)
    ]
    assert not [cell for row in rows for cell in row.values() if cell[:1] in ("=", "+", "-", "@", "\t")]
    assert {"'" + name for name in tricky[:5]} | set(tricky[5:]) <= {row["model"] for row in rows}
    lines = (await bench.client.get("/usage/export", params={"format": "jsonl", "status": "5xx"})).text.splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == [
        row["request_id"] for row in rows if row["status"] == "502"
    ]
    assert (
        len((await bench.client.get("/usage/export", params={"limit": 1001, "format": "json"})).text.splitlines())
        == 1001
    )


BAD = [
    ("/usage", {"limit": 0}), ("/usage", {"limit": 1001}), ("/usage", {"limit": "x"}), ("/usage", {"after": "%%%"}),
    ("/usage", {"after": "AAAA"}), ("/usage", {"after": "MjAyNg=="}), ("/usage", {"since": "yesterday"}),
    ("/usage", {"since": "0001-01-01T00:00:00Z"}), ("/usage", {"hours": 0}), ("/usage", {"hours": "nan"}),
    ("/usage", {"hours": -1}), ("/usage", {"hours": 1, "since": "2026-01-01T00:00:00Z"}),
    ("/usage", {"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}), ("/usage", {"status": "6xx"}),
    ("/usage", {"status": "abc"}), ("/usage", {"status": "5x"}), ("/usage", {"task": "sing"}),
    ("/usage", {"engine": "tgi"}), ("/usage", {"outcome": "fine"}), ("/usage", {"modle": "x"}),
    ("/usage", {"model": "x" * 257}), ("/usage", {"key": "x" * 129}), ("/usage/aggregate", {"group_by": "colour"}),
    ("/usage/aggregate", {"group_by": "model,model"}), ("/usage/aggregate", {"group_by": "hour,day"}),
    ("/usage/aggregate", {"group_by": ","}), ("/usage/aggregate", {"group_by": "model,key,user,org,engine"}),
    ("/usage/aggregate", {"limit": 100_000}), ("/usage/aggregate", {"since": "2199-01-01T00:00:00Z"}),
    ("/usage/series", {"bucket": "year"}), ("/usage/series", {"bucket": "minute", "hours": 26}),
    ("/usage/series", {"group_by": "hour"}), ("/usage/series", {"limit": 51}), ("/usage/latency", {"limit": 0}),
    ("/usage/ttft", {"group_by": "model,key"}), ("/usage/export", {"format": "xlsx"}), ("/usage/export", {"limit": 0}),
]  # fmt: skip


async def test_nonsense_is_refused_by_name(bench: Bench) -> None:
    for path, params in BAD:
        answer = await bench.client.get(path, params=params)
        assert answer.status_code == 422, (path, params, answer.status_code, answer.text)
        assert answer.json()["code"] == "invalid_request", (path, params)
        assert answer.headers["content-type"] == "application/problem+json"
    for path in ("/me/usage", "/me/usage/aggregate", "/me/usage/series"):
        answer = await bench.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (403, "no_user")
    empty = await bench.get("/usage/aggregate", model="", key="")
    assert (empty["items"], empty["totals"]["requests"]) == ([], 0)
    assert (await bench.get("/usage/latency"))["items"] == []
    assert (await bench.get("/usage"))["totals"]["requests"] == 0


async def test_users_see_the_usage_of_their_own_keys_and_no_other(bench: Bench) -> None:
    await bench.add(*crowd(300, NOW - timedelta(days=5), NOW)[6:])
    mine = [one for one in bench.records if one.user_id == USER]
    bench.client.headers["authorization"] = USER
    for params in ({}, {"user": "somebody"}, {"user_id": "somebody"}):
        body = await bench.get("/me/usage", limit=1000, **params)
        assert {item["request_id"] for item in body["items"]} == {one.request_id for one in mine}
        assert body["totals"]["requests"] == len(mine)
    summed = await bench.get("/me/usage/aggregate", hours=24 * 6, group_by="user,model")
    assert {row["user_id"] for row in summed["items"]} == {USER}
    assert summed["totals"]["requests"] == len(mine)
    series = await bench.get("/me/usage/series", hours=24 * 6, bucket="day")
    assert sum(point["requests"] for point in series["items"][0]["points"]) == len(mine)
    bench.client.headers["authorization"] = "01890000-0000-7000-8000-0000000000ff"
    assert (await bench.get("/me/usage"))["items"] == []
