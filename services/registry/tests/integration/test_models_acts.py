"""What can be done with models, over real Postgres and NATS: acts, revisions, dry runs, tests, live logs."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import KeyNotFoundError

from cortex_contracts import subjects
from cortex_contracts.base import NodeId, replica_id
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.estimates import EstimateRequestV1, EstimateResultV1
from cortex_contracts.operations import (
    DryRunRequestV1,
    DryRunResultV1,
    LogsChunkV1,
    LogsFollowRequestV1,
    LogsFollowStartedV1,
    PlacementV1,
    TestRequestV1,
    TestResultV1,
)
from cortex_contracts.rpc import RpcError, RpcReply

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

LLAMA = {"name": "Smol LM2", "engine_type": "llamacpp", "local_path": "smol.gguf", "aliases": ["smol"]}
VLLM = {"name": "Big", "repo_id": "org/big", "hf_token": "hf_secret_value", "tp_size": 2}


async def _document(nc: Client, model_id: str) -> ModelDocumentV1 | None:
    try:
        entry = await (await nc.jetstream().key_value("models")).get(model_id)
    except KeyNotFoundError:
        return None
    return ModelDocumentV1.model_validate_json(entry.value or b"")


async def test_an_archived_model_is_hidden_unpublished_and_keeps_its_names(
    registry: Any, nc: Client, inspector: Any, database: Any, eventually: Callable[..., Any]
) -> None:
    client = registry.client
    model = (await client.post("/admin/models", json=LLAMA)).json()
    await client.post("/admin/models/smol/start")
    await eventually(lambda: _document(nc, model["id"]))

    put_away = await client.post("/admin/models/smol/archive")
    assert put_away.status_code == 200, put_away.text
    assert put_away.json()["archived_at"] is not None
    assert put_away.json()["desired_state"] == "stopped"
    again = await client.post("/admin/models/smol/archive")
    assert again.json()["version"] == put_away.json()["version"] == 3
    assert (await client.get("/admin/models")).json()["items"] == []
    assert [one["id"] for one in (await client.get("/admin/models?archived=true")).json()["items"]] == [model["id"]]
    assert (await client.get("/admin/models/smol")).status_code == 200

    async def unpublished() -> bool:
        return await _document(nc, model["id"]) is None

    await eventually(unpublished)
    taken = await client.post("/admin/models", json={"name": "smol", "repo_id": "a/b"})
    assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")
    for verb in ("start", "restart", "apply"):
        refused = await client.post(f"/admin/models/smol/{verb}")
        assert (refused.status_code, refused.json()["code"]) == (409, "model_archived"), verb

    back = await client.post("/admin/models/smol/unarchive")
    assert (back.json()["archived_at"], back.json()["desired_state"]) == (None, "stopped")
    found = await eventually(lambda: _document(nc, model["id"]))
    assert found.aggregateversion == back.json()["version"] == 4
    rows = await database.fetch("SELECT action, changed FROM model_revisions ORDER BY version")
    assert [tuple(row) for row in rows][2:] == [
        ("model.archive", ["archived", "desired_state"]),
        ("model.unarchive", ["archived"]),
    ]
    archive = await database.fetchval("SELECT detail::text FROM audit WHERE action = 'model.archive'")
    assert '"archived": true' in archive


async def test_an_archived_event_goes_out(registry: Any, nc: Client, inspector: Any) -> None:
    events = await nc.jetstream().subscribe("model.archived", ordered_consumer=True)
    await registry.client.post("/admin/models", json=LLAMA)
    await registry.client.post("/admin/models/smol/archive")
    message = await events.next_msg(timeout=20)
    assert b'"type":"model.archived.v1"' in message.data


async def test_a_restart_replaces_replicas_and_a_lost_update_is_refused(registry: Any, inspector: Any) -> None:
    client = registry.client
    made = await client.post("/admin/models", json=LLAMA)
    assert made.headers["etag"] == '"1"'
    restarted = await client.post("/admin/models/smol/restart")
    assert (restarted.json()["restart_generation"], restarted.json()["desired_state"]) == (1, "running")
    assert restarted.headers["etag"] == '"2"'
    assert (await client.post("/admin/models/smol/restart")).json()["restart_generation"] == 2
    for method, path, body in (
        ("PATCH", "", {"threads": 3}),
        ("POST", "/stop", None),
        ("POST", "/archive", None),
        ("DELETE", "", None),
    ):
        late = await client.request(method, f"/admin/models/smol{path}", json=body, headers={"If-Match": '"2"'})
        assert (late.status_code, late.json()["code"], late.json()["version"]) == (412, "precondition_failed", 3)
    timely = await client.patch("/admin/models/smol", json={"threads": 3}, headers={"If-Match": '"3"'})
    assert (timely.status_code, timely.json()["version"]) == (200, 4)


async def test_a_clone_has_everything_but_the_names_and_shows_no_secret(
    registry: Any, database: Any, nc: Client
) -> None:
    client = registry.client
    source = (await client.post("/admin/models", json=VLLM | {"aliases": ["b"], "extra_env": {"A": "b"}})).json()
    clone = await client.post("/admin/models/big/clone", json={"name": "Big Two", "tp_size": 4})
    assert clone.status_code == 201, clone.text
    body = clone.json()
    assert (body["served_model_name"], body["aliases"], body["tp_size"]) == ("big-two", [], 4)
    assert body["has_hf_token"] is True
    assert "hf_secret" not in clone.text
    own = {"id", "name", "served_model_name", "aliases", "tp_size", "created_at", "updated_at", "since", "version"}
    assert {name for name in body if body[name] != source[name]} <= own
    sealed = await database.fetch("SELECT DISTINCT hf_token_sealed FROM models")
    assert len(sealed) == 1
    without = await client.post("/admin/models/big/clone", json={"name": "Big Three", "hf_token": None})
    assert without.json()["has_hf_token"] is False
    nameless = await client.post("/admin/models/big/clone", json={})
    assert nameless.status_code == 422


async def test_revisions_are_listed_compared_and_come_back(registry: Any, database: Any) -> None:
    client = registry.client
    model = (await client.post("/admin/models", json=VLLM, headers={"x-request-id": "first"})).json()
    await client.patch("/admin/models/big", json={"tp_size": 4, "extra_args": ["--seed", "1"]})
    await client.patch("/admin/models/big", json={"hf_token": "hf_other_secret"})
    await client.post("/admin/models/big/start")

    listed = (await client.get("/admin/models/big/revisions")).json()
    assert [(one["version"], one["action"], one["author"]) for one in listed["items"]] == [
        (4, "model.start", "admin"),
        (3, "model.update", "admin"),
        (2, "model.update", "admin"),
        (1, "model.create", "admin"),
    ]
    assert listed["items"][3]["request_id"] == "first"
    page = (await client.get("/admin/models/big/revisions?limit=2")).json()
    rest = (await client.get(f"/admin/models/big/revisions?limit=2&after={page['next']}")).json()
    assert [one["version"] for one in page["items"] + rest["items"]] == [4, 3, 2, 1]

    shown = (await client.get("/admin/models/big/revisions/1")).json()
    assert (shown["fields"]["tp_size"], shown["fields"]["hf_token"]) == (2, "***")
    compared = (await client.get("/admin/models/big/revisions/diff?from=1&to=3")).json()
    assert compared["items"] == [
        {"field": "extra_args", "before": [], "after": ["--seed", "1"]},
        {"field": "hf_token", "before": "***", "after": "***"},
        {"field": "tp_size", "before": 2, "after": 4},
    ]
    newest = (await client.get("/admin/models/big/revisions/diff?from=3")).json()
    assert [one["field"] for one in newest["items"]] == ["desired_state"]

    back = await client.post("/admin/models/big/rollback", json={"version": 1})
    assert back.status_code == 200, back.text
    body = back.json()
    assert (body["version"], body["tp_size"], body["extra_args"], body["desired_state"]) == (5, 2, [], "running")
    assert [(one["field"], one["code"]) for one in body["warnings"]] == [("hf_token", "kept")]
    tokens = await database.fetch(
        "SELECT document->>'hf_token_sealed' AS token FROM model_revisions WHERE version IN (3, 5)"
    )
    assert len({row["token"] for row in tokens}) == 1
    assert (await client.post("/admin/models/big/rollback", json={"version": 1})).json()["version"] == 5
    unknown = await client.post("/admin/models/big/rollback", json={"version": 99})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "revision_not_found")
    taken = await client.post("/admin/models", json={"name": "other", "served_model_name": "big-2", "repo_id": "a/b"})
    assert taken.status_code == 201
    await client.delete("/admin/models/big")
    of_deleted = (await client.get(f"/admin/models/{model['id']}/revisions")).json()
    assert of_deleted["items"][0]["action"] == "model.delete"
    assert (await client.get("/admin/models/nothing/revisions")).json()["code"] == "model_not_found"


async def test_old_fields_are_taken_with_a_warning_and_fallbacks_are_judged(registry: Any, inspector: Any) -> None:
    client = registry.client
    old = {
        "name": "Old",
        "repo_id": "org/old",
        "swap_space_gb": 4,
        "temperature": 0.3,
        "selected_gpus": "[1]",
        "request_timeout_sec": 20,
        "fallbacks": ["nowhere"],
        "idle_ttl_s": 60,
        "request_defaults": {"tempurature": 1},
    }
    made = await client.post("/admin/models", json=old)
    assert made.status_code == 201, made.text
    body = made.json()
    assert (body["placement"], body["request_timeout_s"]) == ([1], 20)
    assert body["request_defaults"] == {"temperature": 0.3, "tempurature": 1}
    assert {(one["field"], one["code"]) for one in body["warnings"]} == {
        ("swap_space_gb", "gone"),
        ("temperature", "renamed"),
        ("selected_gpus", "renamed"),
        ("request_timeout_sec", "renamed"),
        ("fallbacks", "unknown_model"),
        ("idle_ttl_s", "no_effect"),
        ("request_defaults.tempurature", "unknown_request_default"),
    }
    patched = await client.patch("/admin/models/old", json={"top_p": 0.5, "state": "running"})
    assert patched.json()["request_defaults"] == {"temperature": 0.3, "tempurature": 1, "top_p": 0.5}
    assert patched.json()["desired_state"] == "stopped"

    second = await client.post("/admin/models", json={"name": "b", "repo_id": "a/b", "fallbacks": ["old"]})
    assert second.json()["warnings"] == []
    circle = await client.patch("/admin/models/old", json={"fallbacks": ["b"]})
    assert (circle.status_code, circle.json()["code"]) == (422, "fallback_cycle")
    assert "b -> old" in circle.json()["detail"]
    itself = await client.patch("/admin/models/b", json={"fallbacks": ["b"]})
    assert itself.json()["code"] == "fallback_cycle"


async def test_an_engine_that_is_switched_off_takes_no_new_models_and_keeps_the_old_ones(
    start_registry: Any, inspector: Any
) -> None:
    async with start_registry() as first:
        await first.ready()
        assert (await first.client.post("/admin/models", json=LLAMA)).status_code == 201
        recipe = await first.client.post("/admin/recipes/from-model/smol", json={"name": "r"})
        assert recipe.status_code == 201, recipe.text
        file = (await first.client.get("/admin/models-export")).json()
    async with start_registry(engines=("vllm",)) as second:
        await second.ready()
        client = second.client
        for path, body in (
            ("/admin/models", LLAMA | {"name": "n", "aliases": []}),
            ("/admin/models/smol/clone", {"name": "n"}),
            ("/admin/recipes/r/models", {"name": "n"}),
            ("/admin/models/dry-run", LLAMA),
        ):
            refused = await client.post(path, json=body)
            assert (refused.status_code, refused.json()["code"]) == (422, "engine_not_available"), path
            assert "CORTEX_ENGINES" in refused.json()["detail"]
        imported = await client.post("/admin/models-import?conflict=rename", json=file)
        assert imported.json()["items"][0]["code"] == "engine_not_available"
        for verb in ("start", "stop"):
            assert (await client.post(f"/admin/models/smol/{verb}")).status_code == 200
        assert (await client.patch("/admin/models/smol", json={"threads": 2})).json()["threads"] == 2
        engines = {one["engine_type"]: one for one in (await client.get("/admin/capabilities")).json()["engines"]}
        assert (engines["vllm"]["enabled"], engines["llamacpp"]["enabled"]) == (True, False)
        assert "CORTEX_ENGINES" in engines["llamacpp"]["reason"]


async def test_capabilities_tell_every_field_with_default_bounds_and_words(registry: Any) -> None:
    found = (await registry.client.get("/admin/capabilities")).json()
    assert found["tasks"] == ["generate", "embed", "rerank"]
    fields = {one["engine_type"]: {f["name"]: f for f in one["fields"]} for one in found["engines"]}
    assert fields["llamacpp"]["context_size"]["default"] == 8192
    assert fields["llamacpp"]["context_size"]["unit"] == "tokens"
    assert (fields["llamacpp"]["ngl"]["minimum"], fields["llamacpp"]["ngl"]["nullable"]) == (0, True)
    assert "q8_0" in fields["llamacpp"]["cache_type_k"]["choices"]
    assert fields["vllm"]["gpu_memory_utilization"]["maximum"] == 1
    assert fields["vllm"]["hf_token"]["write_only"] is True
    assert "ngl" not in fields["vllm"]
    assert all(one["description"] for kind in fields.values() for one in kind.values())
    assert {one["group"] for one in fields["vllm"].values()} == {"basic", "performance", "advanced"}


def _estimate(path: str) -> EstimateResultV1:
    return EstimateResultV1(path=path, engine_type="llamacpp", known=True, total=123, warnings=("close",))


async def test_a_dry_run_answers_with_what_can_be_had(registry: Any, inspector: Any, nc: Client) -> None:
    client = registry.client
    alone = await client.post("/admin/models/dry-run", json=LLAMA)
    assert alone.status_code == 200, alone.text
    body = alone.json()
    assert (body["command"], body["estimate"], body["placement"]) == (None, None, None)
    assert "orchestrator" in body["command_reason"]
    assert "inspector" in body["estimate_reason"]
    assert (await client.get("/admin/models")).json()["items"] == []

    asked: list[DryRunRequestV1] = []

    async def estimate(message: Msg) -> None:
        request = EstimateRequestV1.model_validate_json(message.data)
        await message.respond(RpcReply[EstimateResultV1](result=_estimate(request.path)).model_dump_json().encode())

    async def dry_run(message: Msg) -> None:
        request = DryRunRequestV1.model_validate_json(message.data)
        asked.append(request)
        result = DryRunResultV1(
            node=NodeId("n"),
            image="image",
            argv=("-c", "4096"),
            env={"HF_TOKEN": "***"},
            spec_hash="hash",
            placement=PlacementV1(fits=True, reason="room enough"),
            warnings=("slow",),
        )
        await message.respond(RpcReply[DryRunResultV1](result=result).model_dump_json().encode())

    await nc.subscribe(subjects.RPC_GGUF_ESTIMATE, cb=estimate)
    await nc.subscribe(subjects.RPC_ORCHESTRATOR_DRY_RUN, cb=dry_run)
    await nc.flush()
    await client.post("/admin/models", json=LLAMA)
    full = (await client.post("/admin/models/smol/dry-run", json={"context_size": 4096, "defrag_thold": 0.1})).json()
    assert full["command"]["argv"] == ["-c", "4096"]
    assert full["estimate"]["total"] == 123
    assert full["placement"]["fits"] is True
    assert [(one["field"], one["code"], one["message"]) for one in full["warnings"]][1:] == [
        ("", "engine", "slow"),
        ("", "engine", "close"),
    ]
    assert full["warnings"][0]["code"] == "gone"
    assert asked[0].model.llamacpp is not None
    assert asked[0].model.llamacpp.context_size == 4096
    assert asked[0].estimate is not None
    assert (await client.get("/admin/models/smol")).json()["context_size"] == 8192
    assert (await client.post("/admin/models/smol/dry-run")).status_code == 200
    online = (await client.post("/admin/models/dry-run", json={"name": "v", "repo_id": "a/b"})).json()
    assert "not in the models folder" in online["estimate_reason"]
    missing = (await client.post("/admin/models/dry-run", json=LLAMA | {"local_path": "missing.gguf"})).json()
    assert ("local_path", "file_not_found") in [(one["field"], one["code"]) for one in missing["warnings"]]
    refused = await client.post("/admin/models/smol/dry-run", json={"tp_size": 2})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


async def _observed(registry: Any, model: str) -> bool:
    return bool((await registry.client.get(f"/admin/models/{model}")).json()["replica_status"])


async def test_a_test_needs_a_healthy_replica_and_somebody_to_ask(
    registry: Any, inspector: Any, nc: Client, put_replica: Any, eventually: Callable[..., Any]
) -> None:
    client = registry.client
    model = (await client.post("/admin/models", json=LLAMA)).json()
    await client.post("/admin/models/smol/start")
    nothing = await client.post("/admin/models/smol/test")
    assert (nothing.status_code, nothing.json()["code"]) == (409, "no_healthy_replica")
    ready = (await client.get("/admin/models/smol/readiness")).json()
    assert (ready["ready"], ready["state"]) == (False, "starting")

    await put_replica(model["id"], "started", verdict="healthy")

    async def healthy() -> bool:
        return (await client.get("/admin/models/smol/readiness")).json()["ready"]

    await eventually(healthy)
    away = await client.post("/admin/models/smol/test")
    assert (away.status_code, away.json()["code"]) == (503, "health_unavailable")
    metrics = (await client.get("/admin/models/metrics")).json()["items"]
    assert [(one["id"], one["state"], one["replicas_healthy"]) for one in metrics] == [(model["id"], "running", 1)]
    unknown = await client.post("/admin/models/smol/apply")
    assert (unknown.json()["changed"], unknown.json()["outdated"]) == ([], None)

    async def answer(message: Msg) -> None:
        request = TestRequestV1.model_validate_json(message.data)
        if request.ordinal == 9:
            reply = RpcReply[TestResultV1](error=RpcError(code="no_healthy_replica", message="replica 9 is not there"))
        else:
            result = TestResultV1(
                replica_id=replica_id(request.model_id, 0), ok=True, duration_ms=1, output=request.prompt
            )
            reply = RpcReply[TestResultV1](result=result)
        await message.respond(reply.model_dump_json().encode())

    await nc.subscribe(subjects.RPC_HEALTH_TEST, cb=answer)
    await nc.flush()
    tested = await client.post("/admin/models/smol/test", json={"prompt": "hello"})
    assert (tested.status_code, tested.json()["ok"], tested.json()["output"]) == (200, True, "hello")
    refused = await client.post("/admin/models/smol/test", json={"ordinal": 9})
    assert (refused.status_code, refused.json()["code"]) == (409, "no_healthy_replica")


async def test_a_log_is_followed_as_an_event_stream(
    registry: Any, inspector: Any, nc: Client, put_replica: Any, eventually: Callable[..., Any]
) -> None:
    model = (await registry.client.post("/admin/models", json=LLAMA)).json()
    await put_replica(model["id"], "started", node="node-7")
    await eventually(lambda: _observed(registry, "smol"))
    away = await registry.client.get("/admin/models/smol/logs?follow=true")
    assert (away.status_code, away.json()["code"]) == (503, "orchestrator_unavailable")

    async def answer(message: Msg) -> None:
        request = LogsFollowRequestV1.model_validate_json(message.data)
        started = LogsFollowStartedV1(replica_id=replica_id(request.model_id, request.ordinal))
        await message.respond(RpcReply[LogsFollowStartedV1](result=started).model_dump_json().encode())
        chunks = (
            LogsChunkV1(sequence=0, lines=("one", "two")),
            LogsChunkV1(sequence=1),
            LogsChunkV1(sequence=2, lines=("three",), skipped=2, ended="the engine stopped"),
        )
        for chunk in chunks:
            await nc.publish(request.deliver, chunk.model_dump_json().encode())

    await nc.subscribe(subjects.rpc_logs_follow(NodeId("node-7")), cb=answer)
    await nc.flush()
    followed = await registry.client.get("/admin/models/smol/logs?follow=true&tail=2")
    assert followed.headers["content-type"].startswith("text/event-stream")
    assert followed.text == (
        'id: 0\nevent: log\ndata: {"lines": ["one", "two"], "skipped": 0}\n\n'
        ": alive\n\n"
        'id: 2\nevent: log\ndata: {"lines": ["three"], "skipped": 2}\n\n'
        'event: end\ndata: {"reason": "the engine stopped"}\n\n'
    )


async def test_the_models_folder_is_a_setting_and_configurations_are_read_below_it(
    registry: Any, tmp_path: Path, inspector: Any
) -> None:
    client = registry.client
    base = (await client.get("/admin/models/base-dir")).json()
    assert (base["base_dir"], base["readable"]) == (str(tmp_path), True)
    refused = await client.put("/admin/models/base-dir", json={"base_dir": "/elsewhere"})
    assert (refused.status_code, refused.json()["code"]) == (409, "is_a_setting")

    (tmp_path / "org" / "big").mkdir(parents=True)
    (tmp_path / "org" / "big" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("[1]")
    (tmp_path / "out").symlink_to("/etc")
    found = await client.get("/admin/models/hf-config?local_path=org/big")
    assert found.json() == {"source": "local", "config": {"model_type": "llama"}}
    for query, status, code in (
        ("local_path=nothing", 404, "file_not_found"),
        ("local_path=bad", 422, "invalid_config"),
        ("local_path=../x", 422, "path_outside_models_root"),
        ("local_path=out", 404, "file_not_found"),
        ("repo_id=org/big", 409, "hub_lookups_off"),
        ("", 422, "invalid_request"),
        ("repo_id=a/../b", 422, "invalid_request"),
    ):
        answer = await client.get(f"/admin/models/hf-config?{query}")
        assert (answer.status_code, answer.json()["code"]) == (status, code), query
    away = await client.get("/admin/models/local-folders")
    assert (away.status_code, away.json()["code"]) == (503, "inspector_unavailable")


async def test_two_models_that_take_each_others_names_end_in_order(registry: Any, database: Any) -> None:
    client = registry.client
    for name in ("a", "b"):
        await client.post("/admin/models", json={"name": name, "repo_id": "o/m", "aliases": [f"{name}1", f"{name}2"]})
    names = {"a": ["a1", "a2"], "b": ["b1", "b2"]}
    for turn in range(15):
        wanted = {"a": names["b"] if turn % 2 else names["a"], "b": names["a"] if turn % 2 else names["b"]}
        answers = await asyncio.gather(
            *(client.patch(f"/admin/models/{name}", json={"aliases": wanted[name]}) for name in ("a", "b")),
            *(client.patch(f"/admin/models/{name}", json={"aliases": []}) for name in ("b", "a")),
        )
        codes = {(answer.status_code, answer.json().get("code")) for answer in answers}
        assert codes <= {(200, None), (409, "name_taken"), (409, "conflict")}, codes
    rows = await database.fetch("SELECT id, served_model_name, aliases FROM models")
    wanted_names = {(name, row["id"]) for row in rows for name in (row["served_model_name"], *row["aliases"])}
    owned = {(row["name"], row["model_id"]) for row in await database.fetch("SELECT name, model_id FROM served_names")}
    assert owned == wanted_names
