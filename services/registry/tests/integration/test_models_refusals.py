"""Requests about models, recipes and files that are refused: the code is stable, and nothing is changed or told."""

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

JSON = {"Content-Type": "application/json"}
BIG = {"name": "Big", "repo_id": "org/big"}
FILE = {"format": "cortex.models", "version": 1, "models": [{"name": "New", "repo_id": "a/b"}]}
DEEP: Any = {}
for _ in range(60):
    DEEP = {"a": DEEP}

CASES: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/models", {"name": "x", "repo_id": "a/b", "selected_gpus": "{"}, 422, "invalid_request"),
    ("POST", "/models", {"name": "x", "repo_id": "a/b", "request_defaults_json": "[1]"}, 422, "invalid_request"),
    ("POST", "/models", {"name": "x", "repo_id": "a/b", "temperature": {"a\x00": 1}}, 422, "invalid_request"),
    ("POST", "/models", {"name": "x", "repo_id": "a/b", "request_defaults": DEEP}, 400, "json_too_deep"),
    ("POST", "/models", {"name": "x", "repo_id": "a/b", "fallbacks": ["x"]}, 422, "fallback_cycle"),
    ("POST", "/models", {"name": "x", "repo_id": "a/b", "tokenizer": "/etc/passwd"}, 422, "invalid_request"),
    ("POST", "/models", {"name": "x", "repo_id": "a/b", "tokenizer": "../up"}, 422, "invalid_request"),
    ("POST", "/models", {"name": "x", "local_path": "m", "tokenizer": "/etc"}, 422, "path_outside_models_root"),
    (
        "POST",
        "/models",
        {"name": "x", "local_path": "m", "chat_template_file": "../t"},
        422,
        "path_outside_models_root",
    ),
    ("POST", "/models", {"name": "x", "repo_id": "a/b", "draft_model_path": "/d"}, 422, "path_outside_models_root"),
    ("POST", "/models", {"name": "x", "repo_id": "a/b", "lora_modules": [{"name": "l"}]}, 422, "invalid_request"),
    (
        "POST",
        "/models",
        {"name": "x", "repo_id": "a/b", "lora_modules": [{"name": "l", "path": "../l"}]},
        422,
        "path_outside_models_root",
    ),
    ("POST", "/models", {"name": "x", "repo_id": "a/b", "extra_args": ["--log-config-file=x"]}, 422, "denied_argument"),
    (
        "POST",
        "/models",
        {"name": "x", "repo_id": "a/b", "engine_startup_args_json": '[{"flag": "--api-key", "value": "x"}]'},
        422,
        "denied_argument",
    ),
    (
        "POST",
        "/models",
        {"name": "x", "repo_id": "a/b", "engine_startup_env_json": '{"LD_PRELOAD": "x"}'},
        422,
        "denied_argument",
    ),
    ("POST", "/models", [], 422, "invalid_request"),
    ("POST", "/models", None, 422, "invalid_request"),
    ("PATCH", "/models/big", [], 422, "invalid_request"),
    ("PATCH", "/models/big", {"engine_type": "llamacpp"}, 422, "invalid_request"),
    ("PATCH", "/models/big", {"name": None}, 422, "invalid_request"),
    ("PATCH", "/models/big", {"ngl": 3}, 422, "invalid_request"),
    ("PATCH", "/models/big", {"max_model_len": 10**40}, 422, "invalid_request"),
    ("PATCH", "/models/nothing", {"tp_size": 2}, 404, "model_not_found"),
    ("PATCH", "/models/big%00", {"tp_size": 2}, 404, "not_found"),
    ("POST", "/models/nothing/archive", None, 404, "model_not_found"),
    ("POST", "/models/big/clone", {"name": ""}, 422, "invalid_request"),
    ("POST", "/models/big/clone", {"name": "Big"}, 409, "name_taken"),
    ("POST", "/models/big/clone", {"name": "x", "nonsense": 1}, 422, "invalid_request"),
    ("POST", "/models/big/rollback", {}, 422, "invalid_request"),
    ("POST", "/models/big/rollback", {"version": 0}, 422, "invalid_request"),
    ("POST", "/models/big/rollback", {"version": 10**30}, 422, "invalid_request"),
    ("POST", "/models/big/rollback", {"version": 7}, 404, "revision_not_found"),
    ("GET", "/models/big/revisions/99999999999999999999", None, 422, "invalid_request"),
    ("GET", "/models/big/revisions?limit=0", None, 422, "invalid_request"),
    ("GET", "/models/big/revisions?after=x", None, 422, "invalid_request"),
    ("GET", "/models/big/revisions/diff", None, 422, "invalid_request"),
    ("POST", "/models/big/test", {"prompt": "x" * 5000}, 422, "invalid_request"),
    ("POST", "/models/big/dry-run", {"replicas": -1}, 422, "invalid_request"),
    ("POST", "/models/dry-run", {"name": "x"}, 422, "invalid_request"),
    ("GET", "/models/big/logs?tail=0", None, 422, "invalid_request"),
    ("GET", "/models/big/logs?follow=true", None, 404, "replica_not_found"),
    ("PUT", "/models/base-dir", {"base_dir": "/x"}, 409, "is_a_setting"),
    ("GET", "/models/inspect-folder", None, 422, "invalid_request"),
    ("GET", "/models/inspect-folder?folder=../x", None, 422, "path_outside_models_root"),
    ("GET", "/gguf/scan?path=/etc", None, 422, "path_outside_models_root"),
    ("GET", "/gguf/scan?limit=501", None, 422, "invalid_request"),
    ("POST", "/gguf/estimate", {"path": "../x"}, 422, "path_outside_models_root"),
    ("POST", "/gguf/estimate", {}, 422, "invalid_request"),
    ("POST", "/gguf/recommend", {"path": "a", "parallel_slots": 0}, 422, "invalid_request"),
    ("POST", "/models-import", FILE | {"models": [{}]}, 422, "import_failed"),
    ("POST", "/models-import", FILE | {"models": [{"name": "x", "repo_id": "\ud800"}]}, 422, "invalid_request"),
    ("POST", "/models-import", FILE | {"models": [{"name": "x"}] * 1001}, 422, "invalid_request"),
    ("POST", "/models-import?conflict=shout", FILE, 422, "invalid_request"),
    ("POST", "/models-import", FILE | {"more": 1}, 422, "invalid_request"),
    ("POST", "/recipes", {"name": "r"}, 422, "invalid_request"),
    ("POST", "/recipes", {"name": " ", "repo_id": "a/b"}, 422, "invalid_request"),
    ("POST", "/recipes", {"name": "r\x00", "repo_id": "a/b"}, 422, "invalid_request"),
    ("POST", "/recipes", {"name": "r", "fields": {"repo_id": "a/b", "extra_args": ["--host"]}}, 422, "denied_argument"),
    ("POST", "/recipes", {"name": "r", "fields": []}, 422, "invalid_request"),
    ("PATCH", "/recipes/there", {"fields": {"engine_type": "llamacpp"}}, 422, "invalid_request"),
    ("PATCH", "/recipes/there", {"fields": {"repo_id": None}}, 422, "invalid_request"),
    ("PATCH", "/recipes/nothing", {"name": "y"}, 404, "recipe_not_found"),
    ("DELETE", "/recipes/01995c3e-7a00-7000-8000-000000000001", None, 404, "recipe_not_found"),
    ("POST", "/recipes/there/models", {}, 422, "invalid_request"),
    ("POST", "/recipes/there/models", {"name": "Big"}, 409, "name_taken"),
    ("POST", "/recipes/there/models", {"name": "y", "overrides": {"name": "z"}}, 422, "invalid_request"),
    ("POST", "/recipes/there/models", {"name": "y", "ngl": 1}, 422, "invalid_request"),
    ("POST", "/recipes/from-model/nothing", {"name": "y"}, 404, "model_not_found"),
    ("GET", "/recipes?after=x", None, 422, "invalid_request"),
    ("GET", "/recipes?engine_type=x", None, 422, "invalid_request"),
]


async def test_no_refused_request_changes_or_tells_anything(registry: Any, database: Any, inspector: Any) -> None:
    client = registry.client
    assert (await client.post("/admin/models", json=BIG)).status_code == 201
    assert (await client.post("/admin/recipes", json={"name": "there", "repo_id": "a/b"})).status_code == 201

    async def traces() -> tuple[int, ...]:
        tables = ("models", "model_revisions", "recipes", "audit", "served_names")
        return tuple([await database.fetchval(f"SELECT count(*) FROM {table}") for table in tables])

    before = await traces()
    wrong: list[str] = []
    for method, path, body, status, code in CASES:
        content = None if body is None else json.dumps(body)  # keeps half a surrogate pair as an escape
        answer = await client.request(method, f"/admin{path}", content=content, headers=JSON)
        got = (answer.status_code, answer.json().get("code"))
        if got != (status, code):
            wrong.append(f"{method} {path} {str(body)[:80]}: {got}, not {(status, code)}: {answer.text[:200]}")
        elif answer.headers["content-type"] != "application/problem+json":
            wrong.append(f"{method} {path}: {answer.headers['content-type']}")
    assert not wrong, "\n".join(wrong)
    assert await traces() == before
    assert await database.fetchval("SELECT max(version) FROM models") == 1
