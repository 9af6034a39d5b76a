"""Recipes, and models out to a file and in again, over real Postgres and NATS."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from nats.aio.client import Client
from pydantic import SecretStr

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.engines import VllmOptions
from cortex_registry.adapters.migrate_command import run_migrations
from cortex_registry.adapters.migrations import load_migrations, migrate
from cortex_testing.servers import PostgresServer, create_database, drop_database

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

LLAMA = {"name": "Smol LM2", "engine_type": "llamacpp", "local_path": "smol.gguf", "aliases": ["smol"], "threads": 2}
VLLM = {"name": "Big", "repo_id": "org/big", "hf_token": "hf_secret_value", "tp_size": 2, "extra_env": {"A": "b"}}


async def test_a_recipe_lives_through_its_life_with_events_and_audit(registry: Any, nc: Client, database: Any) -> None:
    client = registry.client
    events = await nc.jetstream().subscribe("recipe.>", ordered_consumer=True)
    made = await client.post(
        "/admin/recipes", json={"name": "Fast", "description": "for tests", "repo_id": "org/big", "swap_space_gb": 4}
    )
    assert made.status_code == 201, made.text
    recipe = made.json()
    assert made.headers["location"] == f"/admin/recipes/{recipe['id']}"
    assert (made.headers["etag"], recipe["engine_type"], recipe["fields"]["tp_size"]) == ('"1"', "vllm", 1)
    assert [one["code"] for one in recipe["warnings"]] == ["gone"]
    assert "name" not in recipe["fields"]

    twice = await client.post("/admin/recipes", json={"name": "fAST", "fields": {"repo_id": "a/b"}})
    assert (twice.status_code, twice.json()["code"]) == (409, "name_taken")
    wrong = await client.post("/admin/recipes", json={"name": "x", "fields": {"repo_id": "a/b", "ngl": 1}})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_request")

    changed = await client.patch(
        "/admin/recipes/fast", json={"fields": {"tp_size": 2, "dtype": None}}, headers={"If-Match": '"1"'}
    )
    assert (changed.json()["version"], changed.json()["fields"]["tp_size"]) == (2, 2)
    late = await client.patch("/admin/recipes/fast", json={"description": "x"}, headers={"If-Match": '"1"'})
    assert (late.status_code, late.json()["version"]) == (412, 2)
    assert (await client.patch("/admin/recipes/fast", json={"fields": {"tp_size": 2}})).json()["version"] == 2

    await client.post("/admin/recipes", json={"name": "Slow", "fields": {"repo_id": "a/b", "task": "embed"}})
    for query, names in (
        ("", ["Fast", "Slow"]),
        ("q=TESTS", ["Fast"]),
        ("q=slow", ["Slow"]),
        ("q=%25", []),
        ("engine_type=llamacpp", []),
        ("task=embed", ["Slow"]),
    ):
        found = (await client.get(f"/admin/recipes?{query}")).json()
        assert [one["name"] for one in found["items"]] == names, query
    page = (await client.get("/admin/recipes?limit=1")).json()
    rest = (await client.get(f"/admin/recipes?limit=1&after={page['next']}")).json()
    assert [one["name"] for one in page["items"] + rest["items"]] == ["Fast", "Slow"]

    assert (await client.delete(f"/admin/recipes/{recipe['id']}")).status_code == 204
    gone = await client.get("/admin/recipes/fast")
    assert (gone.status_code, gone.json()["code"]) == (404, "recipe_not_found")
    seen = [(await events.next_msg(timeout=20)).subject for _ in range(4)]
    assert seen == ["recipe.created", "recipe.updated", "recipe.created", "recipe.deleted"]
    actions = await database.fetch("SELECT action FROM audit WHERE subject LIKE 'recipe/%' ORDER BY id")
    assert [row["action"] for row in actions] == ["recipe.create", "recipe.update", "recipe.create", "recipe.delete"]


async def test_a_model_becomes_a_recipe_and_a_model_again(registry: Any, inspector: Any) -> None:
    client = registry.client
    source = (await client.post("/admin/models", json=LLAMA | {"lora_adapters": [{"path": "l.gguf"}]})).json()
    recipe = (await client.post("/admin/recipes/from-model/smol", json={"name": "smol"})).json()
    made = await client.post(
        "/admin/recipes/smol/models", json={"name": "Again", "aliases": ["more"], "overrides": {"threads": None}}
    )
    assert made.status_code == 201, made.text
    own = {"id", "name", "served_model_name", "aliases", "threads", "created_at", "updated_at", "since"}
    assert {name for name, value in made.json().items() if source[name] != value} == own
    assert made.json()["threads"] is None
    assert recipe["fields"]["lora_adapters"] == [{"path": "l.gguf", "scale": 1.0}]
    taken = await client.post("/admin/recipes/smol/models", json={"name": "Again"})
    assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")


@asynccontextmanager
async def a_database(server: PostgresServer) -> AsyncGenerator[str]:
    dsn = await create_database(server)
    try:
        yield dsn
    finally:
        await drop_database(server, dsn)


def _same(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    own = (
        "id",
        "version",
        "created_at",
        "updated_at",
        "since",
        "has_hf_token",
        "archived_at",
        "desired_state",
        "state",
    )
    return [{name: value for name, value in model.items() if name not in own} for model in models]


async def test_models_go_out_to_a_file_and_come_into_an_empty_registry_as_they_were(
    registry: Any, start_registry: Any, inspector: Any, postgres_server: PostgresServer
) -> None:
    client = registry.client
    await client.post("/admin/models", json=LLAMA | {"request_defaults": {"stop": ["a", None]}})
    await client.post("/admin/models", json=VLLM | {"fallbacks": ["smol"]})
    await client.post("/admin/models", json={"name": "old", "repo_id": "org/old"})
    await client.post("/admin/models/old/archive")
    await client.post("/admin/models/smol/start")
    exported = await client.get("/admin/models-export")
    assert "hf_secret" not in exported.text
    assert "sealed" not in exported.text
    file = exported.json()
    assert [one.get("missing_secrets") for one in file["models"]] == [None, ["hf_token"], None]
    one = (await client.get("/admin/models/smol/export")).json()
    assert one["models"] == file["models"][:1]
    assert (await client.post("/admin/deployment/export-model/smol")).json()["models"] == one["models"]
    before = (await client.get("/admin/models?archived=true")).json()["items"]

    async with a_database(postgres_server) as dsn:
        assert await run_migrations(SecretStr(dsn), only_check=False, wait_s=5)
        async with start_registry(database_url=dsn) as other:
            await other.ready()
            empty = await other.client.get("/admin/models-export")
            assert (empty.status_code, empty.json()["code"]) == (404, "nothing_to_export")
            tried = (await other.client.post("/admin/models-import?dry_run=true", json=file)).json()
            assert (tried["applied"], [one["outcome"] for one in tried["items"]]) == (False, ["created"] * 3)
            assert (await other.client.get("/admin/models?archived=true")).json()["items"] == []
            done = await other.client.post("/admin/deployment/import-model?start=true", json=file)
            assert done.status_code == 200, done.text
            assert [one["missing_secrets"] for one in done.json()["items"]] == [[], ["hf_token"], []]
            after = (await other.client.get("/admin/models?archived=true")).json()["items"]
    for model in after:
        model["reason"] = ""
    for model in before:
        model["reason"] = ""
    assert _same(after) == _same(before)
    assert [(one["desired_state"], one["archived_at"] is None) for one in after] == [
        ("running", True),
        ("stopped", True),
        ("stopped", False),
    ]


async def test_a_file_is_imported_whole_or_not_at_all_unless_asked(
    registry: Any, inspector: Any, database: Any
) -> None:
    client = registry.client
    await client.post("/admin/models", json=VLLM)
    file = {
        "format": "cortex.models",
        "version": 1,
        "models": [
            {"name": "New", "repo_id": "org/new"},
            {"name": "Big", "repo_id": "org/big2"},
            {"name": "Bad", "repo_id": "org/bad", "ngl": 3},
            {"name": "Gone", "engine_type": "llamacpp", "local_path": "missing.gguf"},
        ],
    }
    whole = await client.post("/admin/models-import", json=file)
    assert (whole.status_code, whole.json()["code"]) == (422, "import_failed")
    assert [(one["outcome"], one["code"]) for one in whole.json()["items"]] == [
        ("created", ""),
        ("failed", "name_taken"),
        ("failed", "invalid_request"),
        ("failed", "file_not_found"),
    ]
    assert await database.fetchval("SELECT count(*) FROM models") == 1
    assert await database.fetchval("SELECT count(*) FROM audit WHERE subject LIKE 'model/%'") == 1

    partial = await client.post("/admin/models-import?partial=true&conflict=rename", json=file)
    assert [one["outcome"] for one in partial.json()["items"]] == ["created", "renamed", "failed", "failed"]
    assert partial.json()["items"][1]["served_model_name"] == "big-2"
    assert await database.fetchval("SELECT count(*) FROM models") == 3

    small = file | {"models": [{"name": "Big", "repo_id": "org/big3", "tp_size": 8}]}
    skipped = (await client.post("/admin/models-import?conflict=skip", json=small)).json()
    assert [one["outcome"] for one in skipped["items"]] == ["skipped"]
    replaced = (await client.post("/admin/models-import?conflict=replace", json=small)).json()
    assert [one["outcome"] for one in replaced["items"]] == ["replaced"]
    big = (await client.get("/admin/models/big")).json()
    assert (big["repo_id"], big["tp_size"], big["version"], big["has_hf_token"]) == ("org/big3", 8, 2, True)
    again = (await client.post("/admin/models-import?conflict=replace", json=small)).json()
    assert (again["applied"], (await client.get("/admin/models/big")).json()["version"]) == (True, 2)
    for wrong in ({}, file | {"version": 2}, file | {"format": "x"}, file | {"models": []}, file | {"models": [3]}):
        refused = await client.post("/admin/models-import", json=wrong)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), wrong


async def test_models_of_a_database_of_the_first_version_are_published_as_they_were(
    postgres_server: PostgresServer, start_registry: Any, nc: Client, eventually: Callable[..., Any]
) -> None:
    key = "01890000-0000-7000-8000-000000000001"
    async with a_database(postgres_server) as dsn:
        connection = await asyncpg.connect(dsn)
        try:
            await migrate(connection, load_migrations()[:1])
            await connection.execute(
                """
                INSERT INTO models (id, name, served_model_name, repo_id, tp_size, desired_state, version)
                VALUES ($1, 'Big', 'big', 'org/big', 4, 'running', 7)
                """,
                key,
            )
            await connection.execute("INSERT INTO served_names SELECT served_model_name, id FROM models")
        finally:
            await connection.close()
        assert await run_migrations(SecretStr(dsn), only_check=False, wait_s=5)
        async with start_registry(database_url=dsn) as registry:
            await registry.ready()
            bucket = await nc.jetstream().key_value("models")
            entry = await eventually(lambda: _value(bucket, key))
            assert ModelDocumentV1.model_validate_json(entry) == ModelDocumentV1(
                aggregateversion=7,
                id=ModelId(key),
                name="Big",
                served_model_name="big",
                engine_type="vllm",
                repo_id="org/big",
                vllm=VllmOptions(tp_size=4),
                desired_state="running",
            )
            again = await registry.client.post("/admin/models/big/start")
            assert (again.json()["version"], again.json()["restart_generation"]) == (7, 0)
            stopped = await registry.client.post("/admin/models/big/stop")
            back = await registry.client.post("/admin/models/big/start")
            assert (stopped.json()["version"], back.json()["version"], back.json()["tp_size"]) == (8, 9, 4)


async def _value(bucket: Any, key: str) -> bytes | None:
    keys = await bucket.status()
    return (await bucket.get(key)).value if keys.values else None
