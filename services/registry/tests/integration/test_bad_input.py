"""Requests that nobody should send: each is refused by its code, quickly, and changes neither a row nor an event."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ID = "0197f2a0-0000-7000-8000-000000000001"
VLLM = {"name": "x", "repo_id": "a/b"}
GGUF = {"name": "x", "engine_type": "llamacpp", "local_path": "a.gguf"}
UP = {"served_model_name": "x", "endpoints": [{"url": "http://a:1"}]}
HOOK = {"name": "w", "url": "https://example.org/hook", "events": ["*"]}
MODELS, KEYS, UPSTREAMS, HOOKS = "/admin/models", "/admin/keys", "/admin/upstreams", "/admin/webhooks"
INVALID = "invalid_request"


@dataclass(frozen=True)
class Bad:
    """One request and what becomes of it. `body` bytes are sent as they are, anything else as JSON."""

    name: str
    method: str
    path: str
    status: int
    code: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def post(name: str, path: str, body: Any, status: int = 422, code: str = INVALID, **headers: str) -> Bad:
    return Bad(name, "POST", path, status, code, body, {key.replace("_", "-"): value for key, value in headers.items()})


def model(name: str, fields: Mapping[str, Any], code: str = INVALID) -> Bad:
    return post(f"model: {name}", MODELS, {**VLLM, **fields}, code=code)


def gguf(name: str, fields: Mapping[str, Any], code: str = INVALID) -> Bad:
    return post(f"gguf: {name}", MODELS, {**GGUF, **fields}, code=code)


def key(name: str, fields: Mapping[str, Any]) -> Bad:
    return post(f"key: {name}", KEYS, {"name": "k", **fields})


def upstream(name: str, url: str) -> Bad:
    return post(f"upstream: {name}", UPSTREAMS, {**UP, "endpoints": [{"url": url}]})


def get(name: str, path: str, status: int = 422, code: str = INVALID, **headers: str) -> Bad:
    return Bad(name, "GET", path, status, code, None, {key.replace("_", "-"): value for key, value in headers.items()})


JSON = "application/json"
TABLE = (
    # What is no JSON, or no JSON that anybody should parse.
    post("not JSON", MODELS, b"{", 400, "invalid_json"),
    post("two documents", MODELS, b"{}{}", 400, "invalid_json"),
    post("a trailing comma", MODELS, b'{"name":"x",}', 400, "invalid_json"),
    post("NaN", MODELS, b'{"name":"x","replicas":NaN}', 400, "invalid_json"),
    post("Infinity", MODELS, b'{"name":"x","replicas":-Infinity}', 400, "invalid_json"),
    post("not UTF-8", MODELS, b'{"name":"\xff"}', 400, "invalid_json"),
    post("UTF-16", MODELS, '{"name":"x"}'.encode("utf-16"), 400, "invalid_json"),
    post("a byte order mark", MODELS, b'\xef\xbb\xbf{"name":"x"}', 400, "invalid_json"),
    post("a number of 10,000 digits", MODELS, b'{"replicas":' + b"9" * 10_000 + b"}", 400, "invalid_json"),
    post("a member twice", MODELS, b'{"name":"x","name":"y"}', 400, "duplicate_member"),
    post("a nested member twice", UPSTREAMS, b'{"endpoints":[{"url":"a","url":"b"}]}', 400, "duplicate_member"),
    post("100,000 brackets", MODELS, b"[" * 100_000, 400, "json_too_deep"),
    post("100,000 objects", MODELS, b'{"a":' * 40_000, 400, "json_too_deep"),
    post("deep defaults", MODELS, {**VLLM, "request_defaults": json.loads("[" * 40 + "]" * 40)}, 400, "json_too_deep"),
    post("a list", MODELS, []),
    post("a string", MODELS, "x"),
    post("null", MODELS, b"null"),
    post("nothing", MODELS, b""),
    post("a form", MODELS, b"name=x", 415, "unsupported_media_type", content_type="application/x-www-form-urlencoded"),
    post("text", MODELS, b'{"name":"x"}', 415, "unsupported_media_type", content_type="text/plain"),
    post("no media type", MODELS, b'{"name":"x"}', 415, "unsupported_media_type", content_type=""),
    post("300 KiB", MODELS, {**VLLM, "extra_env": {"A": "x" * 300_000}}, 413, "body_too_large"),
    # Text that Postgres, JSON or NATS cannot carry.
    post("a NUL in a value", MODELS, {**VLLM, "name": "a\x00b"}),
    post("a NUL in a member's name", MODELS, {**VLLM, "extra_env": {"A\x00": "b"}}),
    post("half a surrogate pair", MODELS, b'{"name":"\\ud800","repo_id":"a/b"}'),
    post("half a pair in a name of a member", MODELS, b'{"name":"x","repo_id":"a/b","\\udfff":1}'),
    get("a NUL in a path", "/admin/models/a%00b", 404, "not_found"),
    get("a NUL in a query", "/admin/usage?model=a%00b"),
    # Models.
    model("an unknown field", {"nmae": "x"}),
    model("no source", {"repo_id": None}),
    model("two sources", {"local_path": "m"}),
    model("a wrong type", {"replicas": "many"}),
    model("a negative number", {"replicas": -1}),
    model("a huge number", {"replicas": 10**30}),
    model("a fraction", {"replicas": 1.5}),
    model("a boolean for a name", {"name": True}),
    model("an empty name", {"name": "   "}),
    model("an endless name", {"name": "x" * 129}),
    model("a name like an id", {"served_model_name": ID}),
    model("an alias like an id", {"aliases": [ID]}),
    model("a served name with tricks", {"served_model_name": "a/../b"}),
    model("a served name with a space", {"served_model_name": "a b"}),
    model("a served name of another alphabet", {"served_model_name": "gpt\u202e-4"}),
    model("an alias twice", {"aliases": ["a", "a"]}),
    model("an unknown engine", {"engine_type": "tgi"}),
    model("an engine that is a list", {"engine_type": ["vllm"]}),
    model("another engine's field", {"ngl": 3}),
    model("a repository with tricks", {"repo_id": "a/.."}),
    model("a repository that is an option", {"repo_id": "--trust"}),
    model("a GPU that cannot be", {"placement": [-1]}),
    model("a word for placement", {"placement": "everywhere"}),
    model("environment that is no text", {"extra_env": {"A": 1}}),
    model("a denied argument", {"extra_args": ["--api-key", "x"]}, "denied_argument"),
    model("a denied argument with its value", {"extra_args": ["--api-key=x"]}, "denied_argument"),
    model("a denied argument with underscores", {"extra_args": ["--api_key=x"]}, "denied_argument"),
    model("a denied argument, shortened", {"extra_args": ["--api-k", "x"]}, "denied_argument"),
    model("denied environment", {"extra_env": {"LD_PRELOAD": "/x.so"}}, "denied_argument"),
    gguf("another engine's field", {"tp_size": 2}),
    gguf("a path upwards", {"local_path": "../../etc/passwd"}, "path_outside_models_root"),
    gguf("an absolute path", {"local_path": "/etc/passwd"}, "path_outside_models_root"),
    gguf("a path with backslashes", {"local_path": "..\\..\\x.gguf"}, "path_outside_models_root"),
    gguf("a repository", {"repo_id": "a/b"}),
    gguf("a denied short argument", {"extra_args": ["-m", "x"]}, "denied_argument"),
    # Keys.
    key("no name", {"name": ""}),
    key("networks that are none", {"ip_allowlist": ["10.0.0.0/99"]}),
    key("a network that is a host name", {"ip_allowlist": ["localhost"]}),
    key("a network with a zone", {"ip_allowlist": ["fe80::1%eth0/64x"]}),
    key("a scope that is none", {"scopes": ["CHAT"]}),
    key("scopes twice", {"scopes": ["chat", "chat"]}),
    key("no scopes", {"scopes": []}),
    key("negative limits", {"requests_per_minute": -1}),
    key("a limit of zero", {"tokens_per_minute": 0}),
    key("an expiry in the past", {"expires_at": "2001-01-01T00:00:00Z"}),
    key("an expiry that is no time", {"expires_at": "tomorrow"}),
    # Upstreams.
    upstream("no scheme", "10.0.0.1:8000"),
    upstream("another scheme", "gopher://a"),
    upstream("credentials", "http://user:pass@a"),
    upstream("a query", "http://a?x=1"),
    upstream("a metadata service", "http://169.254.169.254/latest"),
    upstream("a metadata service as a number", "http://2852039166"),
    upstream("a header in the URL", "http://a\r\nHost: b"),
    post("upstream: no endpoints", UPSTREAMS, {**UP, "endpoints": []}),
    post("upstream: a key that ends a header", UPSTREAMS, {**UP, "endpoints": [{"url": "http://a", "api_key": "a\n"}]}),
    # Webhooks.
    post("webhook: a file", HOOKS, {**HOOK, "url": "file:///etc/passwd"}),
    post("webhook: no URL", HOOKS, {**HOOK, "url": "nonsense"}),
    post("webhook: a subject that is none", HOOKS, {**HOOK, "events": ["model..created"]}),
    post("webhook: an unknown field", HOOKS, {**HOOK, "method": "PUT"}),
    # People.
    post("user: a role that is none", "/admin/users", {"username": "u", "role": "root"}),
    post("user: a name with tricks", "/admin/users", {"username": "a\u202eb", "role": "viewer"}),
    post("org: no name", "/admin/orgs", {"name": " "}),
    # Headers, cursors, filters, addresses.
    Bad("a malformed If-Match", "DELETE", f"{MODELS}/kept", 400, "invalid_if_match", headers={"If-Match": "3"}),
    Bad("an older version", "DELETE", f"{MODELS}/kept", 412, "precondition_failed", headers={"If-Match": '"77"'}),
    post("a malformed Idempotency-Key", KEYS, {"name": "k"}, 400, "invalid_idempotency_key", Idempotency_Key="a b"),
    get("a cursor of nobody", "/admin/keys?after=nonsense"),
    get("a limit of zero", "/admin/audit?limit=0"),
    get("a negative limit", "/admin/usage?limit=-1"),
    get("an endless limit", "/admin/usage?limit=99999999999999999999"),
    get("a time that is none", "/admin/usage?since=yesterday"),
    get("a path outside the models", "/admin/gguf/inspect?path=../../etc/passwd", 422, "path_outside_models_root"),
    get("an unknown path", "/admin/nothing", 404, "not_found"),
    get("an unknown model", "/admin/models/nobody", 404, "model_not_found"),
    Bad("another method", "PUT", KEYS, 405, "method_not_allowed", {}),
    Bad("a patch of the engine", "PATCH", f"{MODELS}/kept", 422, INVALID, {"engine_type": "llamacpp"}),
    Bad("a patch that is no object", "PATCH", f"{MODELS}/kept", 422, INVALID, [1]),
    Bad("a patch of an unknown field", "PATCH", f"{MODELS}/kept", 422, INVALID, {"nothing": 1}),
)


async def fingerprint(database: Any, nc: Any) -> tuple[dict[str, str], int]:
    """A checksum of every table, and the last sequence of the stream."""
    tables = await database.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    sums: dict[str, str] = {}
    for row in tables:
        rows = await database.fetch(f'SELECT t::text AS row FROM "{row["relname"]}" t ORDER BY 1')
        sums[row["relname"]] = hashlib.sha256("\n".join(one["row"] for one in rows).encode()).hexdigest()
    info = await nc.jetstream().stream_info("EVENTS")
    return sums, info.state.last_seq


@pytest.fixture
async def quiet(registry: Any, database: Any, nc: Any, eventually: Any) -> Any:
    """A registry with one of everything, whose outbox is empty and whose log of events is up to date."""
    client = registry.client
    made = await client.post(MODELS, json={"name": "kept", "repo_id": "a/b"})
    assert made.status_code == 201, made.text
    assert (await client.post(KEYS, json={"name": "kept"})).status_code == 201

    async def settled() -> bool:
        last = (await nc.jetstream().stream_info("EVENTS")).state.last_seq
        waiting = await database.fetchval("SELECT count(*) FROM outbox")
        return waiting == 0 and await database.fetchval("SELECT count(*) FROM event_log") >= last

    await eventually(settled, 20)
    return registry


def test_the_table_is_long_and_names_each_request_once() -> None:
    assert len(TABLE) >= 60
    names = [bad.name for bad in TABLE]
    assert len(set(names)) == len(names)


async def test_a_bad_request_is_refused_by_its_code_and_changes_nothing(
    quiet: Any, database: Any, nc: Any, inspector: list[str]
) -> None:
    before = await fingerprint(database, nc)
    wrong: list[str] = []
    for bad in TABLE:
        content = bad.body if isinstance(bad.body, bytes) else json.dumps(bad.body).encode()
        headers = {"Content-Type": JSON, **bad.headers}
        if bad.body is None:
            content, headers = b"", dict(bad.headers)
        if headers.get("Content-Type", headers.get("content-type")) == "" or headers.get("content-type") == "":
            headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        elif "content-type" in headers:
            headers.pop("Content-Type")
        started = time.perf_counter()
        answer = await quiet.client.request(bad.method, bad.path, content=content, headers=headers)
        took = time.perf_counter() - started
        code = answer.json().get("code") if answer.content else None
        if (answer.status_code, code) != (bad.status, bad.code) or took > 2:
            wrong.append(f"{bad.name}: {answer.status_code} {code}, not {bad.status} {bad.code} ({took:.1f} s)")
        if answer.headers.get("content-type") != "application/problem+json":
            wrong.append(f"{bad.name}: not a problem")
    assert not wrong, "\n".join(wrong)
    after = await fingerprint(database, nc)
    changed = [table for table in before[0] if before[0][table] != after[0].get(table)]
    assert (changed, after[1]) == ([], before[1])
