"""Bodies made to hurt: refused with a stable code, at once, and without taking more memory than they are large."""

import gc
import json
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_contracts.enums import EngineType
from cortex_gateway.domain.capabilities import Capabilities
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.levelling.ask import engine_body, read_ask
from cortex_gateway.domain.requests import API_ROUTES, decode_request

MEGABYTE = 1024 * 1024
NUMBER = b"9" * 5000
WRONG = [b"1", b"-1.5", b"true", b'"text"', b"[]", b"{}", b"[null]", b"1e999", NUMBER, b'{"a":{}}']
READ = [
    "model",
    "stream",
    "stream_options",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "dimensions",
    "echo",
    "logprobs",
    "background",
    "previous_response_id",
    "prompt",
    "messages",
    "input",
    "tools",
    "tool_choice",
]
GOOD: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/completions": {"prompt": "x"},
    "/v1/embeddings": {"input": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/rerank": {"query": "x", "documents": ["a"]},
    "/tokenize": {"prompt": "x"},
    "/detokenize": {"tokens": [1]},
}


def attempt(act: Callable[[], object]) -> ApiError | None:
    try:
        act()
    except ApiError as error:
        return error
    return None


def refusal(body: bytes) -> ApiError:
    with pytest.raises(ApiError) as refused:
        decode_request(body)
    assert refused.value.status == 400
    return refused.value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"{",
        b'{"model":"m"',
        b'{"model":"m"}{}',
        b'{"model":"m",}',
        b"{'model':'m'}",
        b'\xef\xbb\xbf{"model":"m"}',
        b'{"model":"m","x":NaN}',
        b'{"model":"m","x":Infinity}',
        b'{"model":"m","x":01}',
        b'{"model":"m","x":"a\x01b"}',
        b'{"model":"m","x":"\\ud800"}',
        b'{"model":"m","x":"\xff"}',
        b'{"model":"m","x":"\xed\xa0\x80"}',
        b'{"model":"m","x":"\xc0\xaf"}',
        b'{"model":"m"}'.decode().encode("utf-16"),
        b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"m","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"model":"m","messages":' + b"[" * 100_000,
    ],
    ids=range(20),
)
def test_what_is_no_json_is_named_so(body):
    assert refusal(body).openai_code == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"1", b"{}", b'{"Model":"m"}', b'{"model":null}'])
def test_what_is_no_request_is_an_invalid_value(body):
    assert refusal(body).openai_code == "invalid_value"


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","x":{"model":"c"},"model":"b"}',
        b'{"model" : "a", "messages":[{"model":1}], "model" :"a"}',
        b'{"model":"a",' + b'"x":["model"],' * 500 + b'"model":"b"}',
    ],
)
def test_a_model_that_is_named_twice_is_refused(body):
    error = refusal(body)
    assert (error.openai_code, error.param) == ("invalid_value", "model")


def test_the_word_model_elsewhere_is_nobodys_business():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"model": {}}}}}]
    body = {"model": "m", "messages": [{"role": "user", "content": 'say "model" and "model"'}], "tools": tools}
    assert decode_request(json.dumps(body | {"stop": ["model"]}).encode()).model == "m"


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("name", READ)
def test_a_wrong_type_in_a_field_that_is_read_is_a_400_or_the_engines_business(path, name):
    api = API_ROUTES[path]
    for wrong in WRONG:
        members = {key: json.dumps(value).encode() for key, value in ({"model": "m"} | GOOD[path]).items()}
        members[name] = wrong
        body = b"{" + b",".join(b'"%b":%b' % (key.encode(), value) for key, value in members.items()) + b"}"
        for engine in EngineType:
            able = Capabilities(engine, slots=2, context=100, tools=False)
            error = attempt(lambda: engine_body(read_ask(api, body, 0), able, "m", {}))  # noqa: B023 - called at once
            assert error is None or error.status == 400
            assert error is None or error.openai_code in ("invalid_value", "invalid_json", "not_supported_by_model")


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_otherwise(body):
    error = attempt(lambda: decode_request(body))
    assert error is None or error.status == 400


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(READ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
    ),
    st.sampled_from(list(GOOD)),
)
def test_no_values_make_it_fail_otherwise(values, path):
    body = json.dumps({"model": "m"} | GOOD[path] | values).encode()
    able = Capabilities(EngineType.LLAMACPP, slots=2, context=100)
    error = attempt(lambda: engine_body(read_ask(API_ROUTES[path], body, 50), able, "other", {}))
    assert error is None or error.status == 400


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}] * 100_000}).encode(),
        b'{"model":"m","prompt":[' + b'"x",' * 900_000 + b'"x"]}',
        b'{"model":"m","messages":[{"content":"' + "ä😀".encode() * MEGABYTE + b'"}]}',
        b'{"model":"m","x":[' + b'"model",' * 500_000 + b"1]}",
        b'{"model":"m","x":' + b"1" * (5 * MEGABYTE) + b"}",
    ],
    ids=["messages", "prompts", "text", "words", "digits"],
)
def test_a_large_body_takes_little_more_than_itself(body):
    gc.collect()
    tracemalloc.start()
    try:
        decode_request(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(body) + MEGABYTE


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m",' + b",".join(b'"k%d":1' % number for number in range(1_100_000)) + b"}",
        b'{"model":"m","prompt":[' + b'"",' * 1_100_000 + b'""]}',
        b'{"model":"m","prompt":[' + b"[]," * 1_100_000 + b"[]]}",
    ],
    ids=["members", "strings", "lists"],
)
def test_a_swarm_of_tiny_values_is_refused(body):
    assert refusal(body).openai_code == "invalid_value"


def test_very_many_messages_are_refused_before_an_engine_chews_on_them():
    def body(count: int) -> bytes:
        return json.dumps({"model": "m", "messages": [{"role": "user", "content": "{"}] * count}).encode()

    api = API_ROUTES["/v1/chat/completions"]
    assert attempt(lambda: read_ask(api, body(2048), 0)) is None
    error = attempt(lambda: read_ask(api, body(2049), 0))
    assert error is not None
    assert (error.openai_code, error.param) == ("invalid_value", "messages")


def test_a_long_prompt_of_tokens_is_one_prompt_and_is_not_taken_apart():
    ask = read_ask(API_ROUTES["/v1/completions"], b'{"model":"m","prompt":[' + b"1," * 500_000 + b"1]}", 0)
    assert not ask.several
