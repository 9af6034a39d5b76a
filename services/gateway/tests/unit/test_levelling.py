import json

import msgspec
import pytest

from cortex_contracts.enums import EngineType, Task
from cortex_gateway.domain import errors
from cortex_gateway.domain.capabilities import Capabilities
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling import map_engine_error, map_stream_error
from cortex_gateway.domain.levelling.bodies import Changes, prepare_body
from cortex_gateway.domain.levelling.checks import check_request
from cortex_gateway.domain.requests import API_ROUTES, check_task, decode_request, prompt_count


def prepared(body: bytes, *, served="m", defaults=None, streaming=False) -> bytes:
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in (defaults or {}).items()}
    return prepare_body(body, decode_request(body), Changes(served, raw, ask_usage=streaming))


def test_a_body_that_needs_no_change_is_passed_on_as_it_is():
    body = b'{ "model":"m" , "seed": 12345678901234567890, "x": 1.10 }'
    assert prepared(body) is body
    with_usage = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    assert prepared(with_usage, streaming=True) is with_usage


def test_usage_is_asked_for_without_touching_the_rest():
    body = b'{"model":"m","seed":12345678901234567890,"x":1.10, "stream":true } '
    changed = prepared(body, streaming=True)
    assert (
        changed
        == b'{"model":"m","seed":12345678901234567890,"x":1.10, "stream":true ,"stream_options":{"include_usage":true}}'
    )


@pytest.mark.parametrize(
    "options", [{"include_usage": False}, {"continuous_usage_stats": True}, {"include_usage": None, "other": [1]}, None]
)
def test_usage_is_asked_for_beside_other_stream_options(options):
    body = json.dumps({"model": "m", "stream": True, "stream_options": options}).encode()
    changed = json.loads(prepared(body, streaming=True))
    assert changed["stream_options"] == (options or {}) | {"include_usage": True}


def test_an_alias_becomes_the_served_name_and_numbers_stay_as_written():
    body = b'{"model":"alias","seed":12345678901234567890,"x":1.10}'
    assert prepared(body) == b'{"model":"m","seed":12345678901234567890,"x":1.10}'


def test_defaults_fill_absent_keys_only():
    body = b'{"model":"m","temperature":null,"top_p":0.1}'
    changed = json.loads(prepared(body, defaults={"temperature": 1, "top_p": 0.9, "top_k": 5}))
    assert changed == {"model": "m", "temperature": None, "top_p": 0.1, "top_k": 5}


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{bad", "invalid_json", None),
        (b'{"model":"\xff"}', "invalid_json", None),
        (b"[]", "invalid_value", None),
        (b"{}", "invalid_value", "model"),
        (b'{"model":1}', "invalid_value", "model"),
        (b'{"model":"m","stream":"yes"}', "invalid_value", "stream"),
        (b'{"model":"m","stream_options":{"include_usage":3}}', "invalid_value", "stream_options.include_usage"),
    ],
)
def test_bad_bodies(body, code, param):
    with pytest.raises(ApiError) as refused:
        decode_request(body)
    assert (refused.value.status, refused.value.openai_code, refused.value.param) == (400, code, param)


@pytest.mark.parametrize(
    ("prompt", "count"), [('"x"', 1), ('["a","b"]', 2), ("[1,2,3]", 1), ("[[1],[2]]", 2), ("[]", 1), ("null", 1)]
)
def test_prompt_count(prompt, count):
    assert prompt_count(decode_request(f'{{"model":"m","prompt":{prompt}}}'.encode())) == count


def test_the_task_must_fit_the_endpoint():
    check_task(API_ROUTES["/v1/embeddings"], "m", Task.EMBED)
    with pytest.raises(ApiError, match="/v1/chat/completions or /v1/completions"):
        check_task(API_ROUTES["/v1/embeddings"], "m", Task.GENERATE)
    with pytest.raises(ApiError, match="/v1/rerank"):
        check_task(API_ROUTES["/v1/chat/completions"], "m", Task.RERANK)


def test_dimensions_are_refused_where_they_would_be_ignored():
    fields = decode_request(b'{"model":"m","dimensions":64}')
    check_request(fields, Capabilities(EngineType.VLLM))
    with pytest.raises(ApiError, match=r"llama\.cpp"):
        check_request(fields, Capabilities(EngineType.LLAMACPP))


LLAMA_OVERFLOW = (
    b'{"error":{"code":400,"message":"request (6031 tokens) exceeds the available context size (2048 tokens)",'
    b'"type":"exceed_context_size_error","n_prompt_tokens":6031,"n_ctx":2048}}'
)
VLLM_OVERFLOW = (
    b'{"error":{"message":"This model\'s maximum context length is 256 tokens.","type":"BadRequestError",'
    b'"param":"input_text","code":400}}'
)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, LLAMA_OVERFLOW, (400, "invalid_request_error", "messages", "context_length_exceeded")),
        (400, VLLM_OVERFLOW, (400, "invalid_request_error", "input_text", "context_length_exceeded")),
        (400, b'{"error":{"code":400,"message":"bad","type":"x"}}', (400, "invalid_request_error", None, None)),
        (400, b'{"error":{"code":"c","message":"bad","type":"x"}}', (400, "invalid_request_error", None, "c")),
        (401, b'{"error":"Unauthorized"}', (502, "server_error", None, "engine_auth_failed")),
        (404, b'{"detail":"Not Found"}', (400, "invalid_request_error", None, "not_supported_by_model")),
        (501, b'{"error":{"code":501,"message":"no"}}', (400, "invalid_request_error", None, "not_supported_by_model")),
        (500, b"<html>", (500, "server_error", None, None)),
        (500, b"", (500, "server_error", None, None)),
        (429, b'{"message":"slow"}', (429, "rate_limit_error", None, None)),
        (503, b'{"error":{"message":"Loading model","code":503}}', (503, "server_error", None, "model_loading")),
    ],
)
def test_engine_errors_take_one_shape(status, body, expected):
    mapped = map_engine_error(status, body)
    error = json.loads(mapped.error.body())["error"]
    assert (mapped.error.status, error["type"], error["param"], error["code"]) == expected
    assert error["message"]
    assert mapped.loading is (status == 503)
    assert (b"x-cortex-error-origin", b"engine") in mapped.error.headers()


def test_stream_errors_take_the_same_shape():
    error = map_stream_error(b'{"code":500,"message":"boom","type":"server_error"}')
    assert json.loads(error.body())["error"] == {
        "message": "boom",
        "type": "server_error",
        "param": None,
        "code": "engine_error",
    }


def test_gateway_errors_name_their_origin_and_when_to_retry():
    error = errors.model_unavailable("m", "loading", "", 5)
    assert (b"retry-after", b"5") in error.headers()
    assert (b"x-cortex-error-origin", b"gateway") in error.headers()
    assert json.loads(error.body())["error"]["code"] == "model_loading"
