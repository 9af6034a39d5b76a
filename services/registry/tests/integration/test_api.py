"""The admin API over real Postgres and NATS."""

from collections.abc import Callable
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import KeyNotFoundError
from pydantic import SecretStr

from cortex_contracts import subjects
from cortex_contracts.base import NodeId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.rpc import LogsRequestV1, LogsResultV1, RpcReply
from cortex_kit.secrets import unseal

pytestmark = pytest.mark.integration

LLAMA = {"name": "Smol LM2", "engine_type": "llamacpp", "local_path": "smol.gguf"}


async def test_a_llamacpp_model_lives_through_create_update_start_stop_delete(registry: Any, inspector: Any) -> None:
    made = await registry.client.post(
        "/admin/models", json=LLAMA | {"ngl": 0, "context_size": 2048, "cache_type_k": "q8_0", "aliases": ["smol"]}
    )
    assert made.status_code == 201, made.text
    model = made.json()
    assert made.headers["location"] == f"/admin/models/{model['id']}"
    assert inspector == ["smol.gguf"]
    assert (model["served_model_name"], model["state"], model["version"]) == ("smol-lm2", "stopped", 1)
    assert (model["ngl"], model["context_size"], model["batch_size"], model["cache_type_k"]) == (0, 2048, 512, "q8_0")
    assert "tp_size" not in model

    for reference in (model["id"], "smol-lm2", "smol"):
        found = await registry.client.get(f"/admin/models/{reference}")
        assert found.json()["id"] == model["id"]

    patched = await registry.client.patch("/admin/models/smol", json={"context_size": None, "threads": 2})
    assert patched.status_code == 200, patched.text
    assert (patched.json()["context_size"], patched.json()["threads"], patched.json()["version"]) == (8192, 2, 2)
    assert inspector == ["smol.gguf"], "an unchanged path is not inspected again"
    same = await registry.client.patch("/admin/models/smol", json={"threads": 2})
    assert same.json()["version"] == 2

    started = await registry.client.post("/admin/models/smol/start")
    assert (started.json()["desired_state"], started.json()["state"]) == ("running", "starting")
    again = await registry.client.post("/admin/models/smol/start")
    assert again.json()["version"] == started.json()["version"] == 3
    stopped = await registry.client.post("/admin/models/smol/stop")
    assert (stopped.json()["desired_state"], stopped.json()["state"]) == ("stopped", "stopped")

    assert (await registry.client.delete("/admin/models/smol")).status_code == 204
    gone = await registry.client.get("/admin/models/smol")
    assert (gone.status_code, gone.json()["code"]) == (404, "model_not_found")
    assert gone.headers["content-type"] == "application/problem+json"


async def test_a_vllm_model_with_a_slash_in_its_name_keeps_its_token_sealed(
    registry: Any, nc: Client, database: Any, eventually: Callable[..., Any], secret_key: str
) -> None:
    body = {
        "name": "oss",
        "served_model_name": "openai/gpt-oss-120b",
        "repo_id": "openai/gpt-oss-120b",
        "tp_size": 2,
        "reasoning_parser": "openai_gptoss",
        "hf_token": "hf_secret_value",
    }
    made = await registry.client.post("/admin/models", json=body)
    assert made.status_code == 201, made.text
    model = made.json()
    assert (model["engine_type"], model["tp_size"], model["reasoning_parser"]) == ("vllm", 2, "openai_gptoss")
    assert model["has_hf_token"] is True
    assert "hf_secret_value" not in made.text
    assert "hf_token" not in model
    found = await registry.client.get("/admin/models/openai%2Fgpt-oss-120b")
    assert found.json()["id"] == model["id"]

    kv = await nc.jetstream().key_value("models")
    entry = await eventually(lambda: _get(kv, model["id"]))
    document = ModelDocumentV1.model_validate_json(entry)
    assert "hf_secret_value" not in entry.decode()
    assert unseal(SecretStr(secret_key), document.hf_token_sealed or "") == "hf_secret_value"
    assert await database.fetchval("SELECT engine_options->>'reasoning_parser' FROM models") == "openai_gptoss"
    assert await database.fetchval("SELECT tp_size FROM models") == 2

    kept = await registry.client.patch(f"/admin/models/{model['id']}", json={"tp_size": 4})
    assert kept.json()["has_hf_token"] is True
    dropped = await registry.client.patch(f"/admin/models/{model['id']}", json={"hf_token": None})
    assert dropped.json()["has_hf_token"] is False
    revisions = await database.fetch("SELECT version, action, changed FROM model_revisions ORDER BY version")
    assert [(row["version"], row["action"], row["changed"]) for row in revisions] == [
        (1, "model.create", []),
        (2, "model.update", ["tp_size"]),
        (3, "model.update", ["hf_token"]),
    ]
    assert await database.fetchval("SELECT count(*) FROM audit") == 3


async def _get(kv: Any, key: str) -> bytes | None:
    try:
        return (await kv.get(key)).value
    except KeyNotFoundError:
        return None


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({**LLAMA, "tp_size": 2}, 422, "invalid_request", "tp_size"),
        ({**LLAMA, "local_path": "missing.gguf"}, 422, "file_not_found", None),
        ({**LLAMA, "local_path": "../x.gguf"}, 422, "path_outside_models_root", "local_path"),
        ({**LLAMA, "extra_args": ["--port=1"]}, 422, "denied_argument", "extra_args"),
        ({"name": "x"}, 422, "invalid_request", "repo_id"),
        ({"name": "x", "repo_id": "a/b", "max_model_len": 10**12}, 422, "invalid_request", None),
        ({"name": "x\x00", "repo_id": "a/b"}, 422, "invalid_request", "name"),
        ({"name": "x", "repo_id": "a/b", "served_model_name": "taken"}, 409, "name_taken", None),
        ({"name": "x", "repo_id": "a/b", "aliases": ["taken-alias"]}, 409, "name_taken", None),
    ],
)
async def test_a_refused_model_names_what_is_wrong_and_leaves_nothing(
    registry: Any, inspector: Any, database: Any, body: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    taken = {"name": "taken", "repo_id": "a/b", "aliases": ["taken-alias"]}
    assert (await registry.client.post("/admin/models", json=taken)).status_code == 201
    answer = await registry.client.post("/admin/models", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    if field is not None:
        assert field in [error["field"] for error in answer.json()["errors"]], answer.text
    assert await database.fetchval("SELECT count(*) FROM models") == 1


async def test_a_folder_is_stored_as_the_file_that_the_inspector_found(registry: Any, inspector: Any) -> None:
    made = await registry.client.post("/admin/models", json=LLAMA | {"local_path": "big"})
    assert made.json()["local_path"] == "big/model-00001-of-00002.gguf"
    looked = await registry.client.get("/admin/gguf/inspect", params={"path": "big"})
    assert looked.json()["gguf"]["architecture"] == "llama"


async def test_without_an_inspector_a_gguf_is_refused_for_now(registry: Any) -> None:
    answer = await registry.client.post("/admin/models", json=LLAMA)
    assert (answer.status_code, answer.json()["code"]) == (503, "inspector_unavailable")
    assert answer.headers["retry-after"] == "2"


async def test_guards_refuse_before_anything_is_read(registry: Any) -> None:
    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}, {"Authorization": ""}):
        refused = await registry.client.post("/admin/models", content=b"{not json", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        assert refused.headers["www-authenticate"].startswith("Bearer")
    broken = await registry.client.post(
        "/admin/models", content=b"{not json", headers={"content-type": "application/json"}
    )
    assert (broken.status_code, broken.json()["code"]) == (400, "invalid_json")
    large = await registry.client.post("/admin/models", json={"name": "x" * 300_000})
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")

    async def chunks() -> Any:
        for _ in range(5):
            yield b"x" * 100_000

    streamed = await registry.client.post("/admin/models", content=chunks())
    assert (streamed.status_code, streamed.json()["code"]) == (413, "body_too_large")
    unknown = await registry.client.get("/admin/nothing")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    wrong = await registry.client.put("/admin/models")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")


async def test_a_key_is_shown_once_and_gone_after_revocation(
    registry: Any, nc: Client, database: Any, eventually: Callable[..., Any]
) -> None:
    made = await registry.client.post(
        "/admin/keys", json={"name": "ci", "scopes": ["chat"], "ip_allowlist": ["10.0.0.1/8"], "models": ["a"]}
    )
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    key = made.json()
    assert key["key"].startswith("sk-cortex-")
    assert len(key["key"]) == 53
    assert key["ip_allowlist"] == ["10.0.0.0/8"]
    listed = await registry.client.get("/admin/keys")
    assert key["key"] not in listed.text
    assert listed.json()["items"][0]["prefix"] == key["key"][:14]
    stored = await database.fetchrow("SELECT * FROM api_keys")
    assert key["key"] not in str(dict(stored))
    kv = await nc.jetstream().key_value("keys")
    await eventually(lambda: _get(kv, key["id"]))

    for _ in range(2):
        assert (await registry.client.delete(f"/admin/keys/{key['id']}")).status_code == 204

    async def absent() -> bool:
        return await _get(kv, key["id"]) is None

    await eventually(absent)
    assert (await registry.client.get("/admin/keys")).json()["items"][0]["revoked_at"] is not None
    for unknown in ("nonsense", "01890000-0000-7000-8000-000000000000"):
        missing = await registry.client.delete(f"/admin/keys/{unknown}")
        assert (missing.status_code, missing.json()["code"]) == (404, "key_not_found")


async def test_logs_come_from_the_orchestrator_of_the_replicas_node(
    registry: Any, inspector: Any, nc: Client, eventually: Callable[..., Any], put_replica: Any
) -> None:
    model = (await registry.client.post("/admin/models", json=LLAMA)).json()
    nothing = await registry.client.get(f"/admin/models/{model['id']}/logs")
    assert (nothing.status_code, nothing.json()["code"]) == (404, "replica_not_found")
    await put_replica(model["id"], "started", node="node-7")

    async def shown() -> bool:
        found = await registry.client.get(f"/admin/models/{model['id']}")
        return bool(found.json()["replica_status"])

    await eventually(shown)
    away = await registry.client.get(f"/admin/models/{model['id']}/logs")
    assert (away.status_code, away.json()["code"]) == (503, "orchestrator_unavailable")

    async def answer(message: Msg) -> None:
        request = LogsRequestV1.model_validate_json(message.data)
        result = LogsResultV1(lines=(f"tail {request.tail} of {request.ordinal}",))
        await message.respond(RpcReply[LogsResultV1](result=result).model_dump_json().encode())

    await nc.subscribe(subjects.rpc_logs(NodeId("node-7")), cb=answer)
    await nc.flush()
    logs = await registry.client.get(f"/admin/models/{model['id']}/logs?tail=5")
    assert logs.json() == {"lines": ["tail 5 of 0"]}


async def test_the_overview_and_openapi_answer(registry: Any, inspector: Any) -> None:
    await registry.client.post("/admin/models", json=LLAMA)
    status = (await registry.client.get("/admin/status")).json()
    assert status["ready"] is True
    assert status["counts"]["models"] == 1
    assert status["counts"]["models_by_state"] == {"stopped": 1}
    assert (await registry.client.get("/admin/nodes")).json() == {"items": []}
    answer = await registry.client.get("/admin/openapi.json")
    assert answer.status_code == 200, answer.text
    schema = answer.json()
    assert "/admin/models/{reference}/start" in schema["paths"]
    metrics = (await registry.client.get("/metrics")).text
    assert 'route="/admin/models"' in metrics
