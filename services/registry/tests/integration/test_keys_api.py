"""API keys over HTTP on a real Postgres: limits, owners, rotation, self-service, and what reaches the gateway."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from starlette.datastructures import Headers

from cortex_contracts.documents import KeyDocumentV1
from cortex_contracts.rights import Role
from cortex_kit.clock import SystemClock
from cortex_registry.adapters.keys import PostgresKeys
from cortex_registry.adapters.postgres import Database
from cortex_registry.domain.identity import ROOT, CredentialKind, Identity
from cortex_registry.domain.keys import SelfService
from cortex_registry.entrypoints.http import create_app
from cortex_registry.entrypoints.routes.keys import KeyRoutes
from cortex_registry.handlers.keys import KeyService

pytestmark = pytest.mark.integration

ORG, OTHER_ORG = "01890000-0000-7000-8000-0000000000a1", "01890000-0000-7000-8000-0000000000a2"
ALICE, BOB = "01890000-0000-7000-8000-0000000000b1", "01890000-0000-7000-8000-0000000000b2"
NOBODY = "01890000-0000-7000-8000-0000000000ff"
RULES = SelfService(
    scopes=frozenset({"chat", "embeddings"}),
    max_keys=2,
    max_age=timedelta(days=30),
    limits={"requests_per_minute": 60, "tokens_per_month": None},
)


class ByName:
    """Authenticator: the bearer token is the name."""

    async def authenticate(self, headers: Headers, method: str) -> Identity | None:
        name = headers.get("authorization", "").removeprefix("Bearer ")
        if name == "root":
            return ROOT
        user = {"alice": ALICE, "bob": BOB}.get(name)
        return Identity(CredentialKind.TOKEN, name, Role.VIEWER, user, ORG) if user else None


@pytest.fixture
async def pool(migrated_dsn: str) -> AsyncIterator[Database]:
    made = Database(SecretStr(migrated_dsn), size=10, acquire_timeout_s=5, command_timeout_s=20)
    await made.open()
    watching = asyncio.ensure_future(made.run())
    while made.readiness() is not None:
        await asyncio.sleep(0.01)
    yield made
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await made.close()


@pytest.fixture
async def client(
    pool: Database, database: "asyncpg.Connection[asyncpg.Record]"
) -> AsyncIterator[Callable[[str], httpx.AsyncClient]]:
    await database.execute(
        "INSERT INTO orgs (id, name, name_key) VALUES ($1, 'a', 'a'), ($2, 'b', 'b')", ORG, OTHER_ORG
    )
    await database.execute(
        """
        INSERT INTO users (id, username, username_key, role, org_id)
        VALUES ($1, 'alice', 'alice', 'viewer', $3), ($2, 'bob', 'bob', 'viewer', NULL)
        """,
        ALICE,
        BOB,
        ORG,
    )
    service = KeyService(PostgresKeys(pool), clock=SystemClock(), self_service=RULES)
    routes = KeyRoutes(service, SystemClock())
    app = create_app([routes.router()], readiness={}, authenticators=[ByName()], max_body_bytes=100_000)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    made: list[httpx.AsyncClient] = []

    def as_(name: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {name}"}
        made.append(httpx.AsyncClient(transport=transport, base_url="http://test/admin", headers=headers))
        return made[-1]

    yield as_
    for one in made:
        await one.aclose()


async def count(database: Any) -> tuple[int, ...]:
    return tuple(
        [await database.fetchval(f"SELECT count(*) FROM {table}") for table in ("api_keys", "audit", "outbox")]
    )


async def test_every_limit_is_kept_and_the_gateway_gets_what_it_needs_and_no_more(client: Any, database: Any) -> None:
    root = client("root")
    until = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    body = {
        "name": "all",
        "scopes": ["chat", "rerank", "responses", "messages"],
        "models": ["a", "b"],
        "ip_allowlist": ["10.0.0.1/8", "::1"],
        "expires_at": until.isoformat(),
        "user_id": ALICE,
        "requests_per_minute": 5,
        "tokens_per_minute": 100,
        "max_concurrent_streams": 2,
        "tokens_per_month": 3_000_000_000_000,
        "priority": "batch",
    }
    made = await root.post("/keys", json=body)
    assert made.status_code == 201, made.text
    key = made.json()
    assert made.headers["etag"] == '"1"'
    assert {name: key[name] for name in body if name not in ("expires_at", "ip_allowlist")} == {
        name: value for name, value in body.items() if name not in ("expires_at", "ip_allowlist")
    }
    assert (key["org_id"], key["state"], key["disabled"], key["last_used_at"]) == (ORG, "active", False, None)
    read = await root.get(f"/keys/{key['id']}")
    assert read.json() == {name: value for name, value in key.items() if name != "key"}
    row = await database.fetchrow("SELECT * FROM audit")
    assert (row["action"], row["subject"], row["actor"]) == ("key.create", f"key/{key['id']}", "admin")
    assert key["key"] not in row["detail"]
    assert await database.fetchval("SELECT digest FROM api_keys") not in row["detail"]
    assert set(KeyDocumentV1.model_fields) == {
        "id", "aggregateversion", "digest", "name", "scopes", "models", "ip_allowlist", "expires_at", "user_id",
        "org_id", "requests_per_minute", "tokens_per_minute", "max_concurrent_streams", "tokens_per_month", "priority",
    }  # fmt: skip


NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"scopes": ["admin"]}, "scopes.0"),
    ({"scopes": ["Chat"]}, "scopes.0"),
    ({"scopes": []}, "scopes"),
    ({"scopes": ["chat", "chat"]}, "scopes"),
    ({"scopes": "chat"}, "scopes"),
    ({"models": ["a b"]}, "models.0"),
    ({"ip_allowlist": ["10.0.0.300"]}, "ip_allowlist"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ({"expires_at": "soon"}, "expires_at"),
    ({"user_id": NOBODY}, "user_id"),
    ({"user_id": "alice"}, "user_id"),
    ({"org_id": NOBODY}, "org_id"),
    ({"requests_per_minute": 0}, "requests_per_minute"),
    ({"requests_per_minute": 3_000_000_000}, "requests_per_minute"),
    ({"tokens_per_minute": -1}, "tokens_per_minute"),
    ({"tokens_per_minute": 1.5}, "tokens_per_minute"),
    ({"max_concurrent_streams": "many"}, "max_concurrent_streams"),
    ({"tokens_per_month": 10**18}, "tokens_per_month"),
    ({"priority": "urgent"}, "priority"),
    ({"name": "  "}, "name"),
    ({"name": "x" * 129}, "name"),
    ({"digest": "x"}, "digest"),
]


async def test_nonsense_is_refused_by_name_and_changes_nothing(client: Any, database: Any) -> None:
    root = client("root")
    key = (await root.post("/keys", json={"name": "k"})).json()
    before = await count(database)
    for body, field in NONSENSE:
        made = await root.post("/keys", json={"name": "new"} | body)
        changed = await root.patch(f"/keys/{key['id']}", json=body)
        for answer in (made, changed):
            assert answer.status_code == 422, (body, answer.text)
            assert field in [error["field"] for error in answer.json()["errors"]], (body, answer.text)
        if field == "scopes.0":
            assert "embeddings" in made.text
    assert await count(database) == before
    assert (await root.get(f"/keys/{key['id']}")).json()["version"] == 1


async def test_a_change_replaces_what_it_names_and_null_puts_the_default_back(client: Any, database: Any) -> None:
    root = client("root")
    key = (await root.post("/keys", json={"name": "k", "scopes": ["chat"], "requests_per_minute": 9})).json()
    path = f"/keys/{key['id']}"
    changed = await root.patch(
        path, json={"scopes": None, "requests_per_minute": None, "models": ["m"], "user_id": ALICE, "disabled": True}
    )
    after = changed.json()
    assert (after["scopes"], after["requests_per_minute"], after["models"]) == (["*"], None, ["m"])
    assert (after["user_id"], after["org_id"], after["state"], after["version"]) == (ALICE, ORG, "disabled", 2)
    again = await root.patch(path, json={"models": ["m"], "disabled": True})
    assert again.json()["version"] == 2
    assert (await root.patch(path, json={"disabled": False})).json()["state"] == "active"
    events = await database.fetch("SELECT event_type, aggregate_version, data::text FROM outbox ORDER BY seq")
    assert [(row["event_type"].split(".v")[0], row["aggregate_version"]) for row in events] == [
        ("key.created", 1), ("key.updated", 2), ("key.updated", 3),
    ]  # fmt: skip
    assert '"m"' not in events[1]["data"]
    stale = await root.patch(path, json={"name": "x"}, headers={"If-Match": '"2"'})
    assert (stale.status_code, stale.json()["code"], stale.json()["version"]) == (412, "precondition_failed", 3)
    assert (await root.delete(path, headers={"If-Match": '"1"'})).status_code == 412
    assert (await root.delete(path)).status_code == 204
    dead = await root.patch(path, json={"name": "x"})
    assert (dead.status_code, dead.json()["code"]) == (409, "key_revoked")
    assert (await root.patch(f"/keys/{NOBODY}", json={"name": "x"})).status_code == 404
    assert (await root.patch(path, json={"name": None})).status_code == 422


async def test_a_rotation_leaves_both_keys_working_for_the_overlap_and_happens_once(client: Any, database: Any) -> None:
    root = client("root")
    key = (await root.post("/keys", json={"name": "k", "scopes": ["chat"], "tokens_per_month": 5})).json()
    path = f"/keys/{key['id']}/rotate"
    answers = await asyncio.gather(*(root.post(path, json={"overlap_s": 3600}) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    new = next(answer.json() for answer in answers if answer.status_code == 201)
    assert {answer.json().get("code") for answer in answers} == {None, "already_rotated"}
    assert (new["scopes"], new["tokens_per_month"], new["rotated_from"], new["expires_at"]) == (
        ["chat"], 5, key["id"], None,
    )  # fmt: skip
    assert new["key"] != key["key"]
    ends = datetime.fromisoformat(new["replaces"]["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=50) < ends <= timedelta(hours=1)
    assert new["replaces"]["state"] == "active"
    rows = await database.fetch("SELECT action FROM audit ORDER BY id")
    assert [row["action"] for row in rows] == ["key.create", "key.rotate", "key.create"]
    at_once = await root.post(f"/keys/{new['id']}/rotate", json={"overlap_s": 0})
    assert at_once.json()["replaces"]["state"] == "expired"
    refused = await root.post(f"/keys/{at_once.json()['id']}/rotate", json={"overlap_s": -1})
    assert refused.status_code == 422
    assert (await root.delete(f"/keys/{at_once.json()['id']}")).status_code == 204
    dead = await root.post(f"/keys/{at_once.json()['id']}/rotate")
    assert (dead.status_code, dead.json()["code"]) == (409, "key_not_active")
    assert (await root.post(f"/keys/{NOBODY}/rotate")).status_code == 404


async def test_the_list_is_filtered_and_paged(client: Any, database: Any) -> None:
    root = client("root")
    made = [
        (await root.post("/keys", json={"name": f"key {number}", "user_id": ALICE if number % 2 else None})).json()
        for number in range(7)
    ]
    await root.delete(f"/keys/{made[0]['id']}")
    await root.patch(f"/keys/{made[1]['id']}", json={"disabled": True})
    await database.execute("UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = $1", made[2]["id"])
    found: list[str] = []
    after: str | None = None
    while True:
        page = (await root.get("/keys", params={"limit": 3} | ({"after": after} if after else {}))).json()
        found += [item["id"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert found == [key["id"] for key in made]

    async def ids(**params: Any) -> list[int]:
        items = (await root.get("/keys", params=params)).json()["items"]
        return [int(item["name"].split()[1]) for item in items]

    assert await ids(state="revoked") == [0]
    assert await ids(state="disabled") == [1]
    assert await ids(state="expired") == [2]
    assert await ids(state="active") == [3, 4, 5, 6]
    assert await ids(user=ALICE) == await ids(org=ORG) == [1, 3, 5]
    assert await ids(q="KEY 4") == [4]
    assert await ids(q=made[6]["prefix"]) == [6]
    assert await ids(q="100%") == []
    for bad in ({"limit": 0}, {"after": "x"}, {"state": "odd"}, {"owner": "x"}):
        assert (await root.get("/keys", params=bad)).status_code == 422, bad


async def test_users_make_and_see_only_their_own_keys_within_the_ceilings(client: Any, database: Any) -> None:
    alice, bob, root = client("alice"), client("bob"), client("root")
    made = await alice.post("/me/keys", json={"name": "laptop", "user_id": BOB, "org_id": OTHER_ORG})
    assert made.status_code == 201, made.text
    key = made.json()
    assert (key["user_id"], key["org_id"]) == (ALICE, ORG)
    assert (key["scopes"], key["requests_per_minute"]) == (["chat", "embeddings"], 60)
    left = datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    far = (datetime.now(UTC) + timedelta(days=31)).isoformat()
    for body in ({"scopes": ["*"]}, {"scopes": ["rerank"]}, {"requests_per_minute": 61}, {"expires_at": far}):
        answer = await alice.post("/me/keys", json={"name": "x"} | body)
        assert answer.status_code == 422, body
        assert answer.json()["errors"][0]["code"] == "above_ceiling"
    assert (await alice.post("/me/keys", json={"name": "x", "requests_per_minute": 5})).status_code == 201
    many = await asyncio.gather(*(alice.post("/me/keys", json={"name": "x"}) for _ in range(3)))
    assert {(answer.status_code, answer.json()["code"]) for answer in many} == {(409, "too_many_keys")}
    hours = (datetime.now(UTC) + timedelta(hours=4)).isoformat()  # those for a day at most are counted apart
    brief = [await alice.post("/me/keys", json={"name": "x", "expires_at": hours}) for _ in range(3)]
    assert [answer.status_code for answer in brief] == [201, 201, 409]

    assert [item["name"] for item in (await alice.get("/me/keys")).json()["items"]] == ["laptop", "x", "x", "x"]
    assert (await bob.get("/me/keys", params={"user": ALICE})).json()["items"] == []
    path = f"/me/keys/{key['id']}"
    for answer in (
        await bob.get(path),
        await bob.patch(path, json={"name": "mine"}),
        await bob.delete(path),
        await bob.post(f"{path}/rotate"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "key_not_found")
    assert (await alice.patch(path, json={"requests_per_minute": 1000})).status_code == 422
    assert (await alice.patch(path, json={"name": "desk"})).json()["name"] == "desk"
    rotated = await alice.post(f"{path}/rotate", json={"overlap_s": 60})
    assert rotated.json()["expires_at"] == key["expires_at"]
    assert (await alice.delete(path)).status_code == 204
    assert (await alice.get(path)).json()["state"] == "revoked"
    for call in (alice.get("/keys"), alice.post("/keys", json={"name": "x"}), alice.get(f"/keys/{key['id']}")):
        assert (await call).status_code == 403
    nobody = await root.get("/me/keys")
    assert (nobody.status_code, nobody.json()["code"]) == (403, "no_user")


async def test_two_keys_at_once_are_not_one_too_many(client: Any) -> None:
    bob = client("bob")
    answers = await asyncio.gather(*(bob.post("/me/keys", json={"name": f"k{number}"}) for number in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409, 409, 409]
