"""The shape of every error, and settings."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog
from pydantic import SecretStr, ValidationError

from cortex_contracts.rights import Right
from cortex_kit.errors import DomainError, TransientError
from cortex_registry.domain.specification import Specification
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.guards import RootToken
from cortex_registry.entrypoints.http import create_app
from cortex_registry.errors import DatabaseUnavailableError
from cortex_registry.settings import Settings

TOKEN = "token-of-the-administrator"


async def fail(kind: str) -> None:
    errors: dict[str, Exception] = {
        "domain": DomainError("name_taken", "It is taken.", status=409, details={"name": "x"}),
        "database": DatabaseUnavailableError("test"),
        "transient": TransientError("secret detail"),
        "crash": RuntimeError("secret detail"),
    }
    raise errors[kind]


async def echo(specification: Specification) -> dict[str, str]:
    return {"engine": specification.engine_type}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    routes = Routes("test")
    routes.add("GET", "/fail/{kind}", fail, Right.MODELS_READ)
    routes.add("POST", "/echo", echo, Right.MODELS_WRITE)
    app = create_app([routes.router], readiness={}, authenticators=[RootToken(SecretStr(TOKEN))], max_body_bytes=2000)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("domain", 409, "name_taken"),
        ("database", 503, "database_unavailable"),
        ("transient", 503, "unavailable"),
        ("crash", 500, "internal_error"),
    ],
)
async def test_every_error_is_a_problem_with_a_code(
    client: httpx.AsyncClient, kind: str, status: int, code: str
) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await client.get(f"/admin/fail/{kind}")
    assert [entry["event"] for entry in logs] == (["request_crashed"] if kind == "crash" else [])
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["type"] == f"urn:cortex:problem:{code}"
    assert body["title"]
    assert "secret detail" not in answer.text
    assert ("retry-after" in answer.headers) == (status == 503)
    assert answer.headers["x-request-id"]


async def test_a_discriminated_body_names_the_field_of_the_other_engine(client: httpx.AsyncClient) -> None:
    fields: dict[str, Any] = {"name": "m", "engine_type": "llamacpp", "local_path": "a.gguf", "tp_size": 2}
    body = (await client.post("/admin/echo", json=fields)).json()
    assert body["code"] == "invalid_request"
    assert body["errors"] == [
        {"field": "tp_size", "code": "extra_forbidden", "message": "tp_size is an option of vllm, not of llamacpp"}
    ]
    for content, status, code in ((b"[]", 422, "invalid_request"), (b"{", 400, "invalid_json"), (b"", 422, None)):
        answer = await client.post("/admin/echo", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == status, answer.text
        assert code in (None, answer.json()["code"])
    deep = b'{"name":' + b"[" * 900 + b"]" * 900 + b"}"
    answer = await client.post("/admin/echo", content=deep, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer  ", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
async def test_without_the_token_nothing_below_admin_answers(client: httpx.AsyncClient, header: str | None) -> None:
    client.headers.pop("authorization")
    headers = {} if header is None else {"Authorization": header}
    for path in ("/admin", "/admin/echo", "/admin/unknown", "/admin//echo"):
        answer = await client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert (await client.get("/healthz")).status_code == 200


async def test_a_sane_request_id_is_kept_and_another_is_replaced(client: httpx.AsyncClient) -> None:
    kept = await client.get("/admin/none", headers={"x-request-id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    made = await client.get("/admin/none", headers={"x-request-id": "a b\t"})
    assert made.headers["x-request-id"] != "a b"
    await asyncio.sleep(0)


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEX_NATS_URL", "nats://a:b@h:1")
    monkeypatch.setenv("CORTEX_SECRET_KEY", "x" * 32)
    monkeypatch.setenv("CORTEX_REGISTRY_DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("CORTEX_REGISTRY_ADMIN_TOKEN", TOKEN)
    monkeypatch.setenv("CORTEX_REGISTRY_ENGINES", "llamacpp, vllm")
    monkeypatch.setenv("CORTEX_REGISTRY_EVENTS_MAX_AGE_S", "60")
    settings = Settings()  # type: ignore[call-arg]
    assert (settings.port, settings.engines, settings.events_max_age_s) == (8081, ("llamacpp", "vllm"), 60)
    assert "secret@" not in repr(settings)
    monkeypatch.setenv("CORTEX_ENGINES", "vllm")
    assert Settings().engines == ("vllm",)  # type: ignore[call-arg]
    monkeypatch.setenv("CORTEX_ENGINES", "")
    assert Settings().engines == ()  # type: ignore[call-arg]
    monkeypatch.setenv("CORTEX_ENGINES", "tgi")
    with pytest.raises(ValidationError):
        Settings()  # type: ignore[call-arg]
