import json
from datetime import UTC, datetime

import pytest

from cortex_contracts.enums import EngineType
from cortex_contracts.envelope import Envelope, parse_envelope
from cortex_contracts.events import UsageRecordedV1
from cortex_gateway.adapters.token_counter import counting_questions, read_count
from cortex_gateway.domain.usage import (
    Tokens,
    UsageData,
    UsageEnvelope,
    envelope_id,
    estimate_tokens,
    read_usage,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DATA = UsageData(
    request_id="r1",
    key_id="k1",
    user_id=None,
    org_id="o1",
    model_id="m1",
    model="name",
    engine_type="llamacpp",
    replica_id="m1-0",
    task="generate",
    route="/v1/chat/completions",
    stream=True,
    status=200,
    outcome="completed",
    prompt_tokens=3,
    cached_tokens=1,
    completion_tokens=2,
    estimated=False,
    ttft_ms=1.5,
    duration_ms=2.5,
    started_at=NOW,
)


def test_the_record_has_exactly_the_fields_of_the_contract():
    assert set(UsageData.__struct_fields__) == set(UsageRecordedV1.model_fields)


def test_the_line_on_disk_is_the_contract_s_envelope():
    line = UsageEnvelope("cortex/gateway/x").encode(DATA, NOW, "c1", None)
    assert b"\n" not in line
    envelope = parse_envelope(line)
    assert isinstance(envelope.data, UsageRecordedV1)
    assert envelope == Envelope[UsageRecordedV1](
        id="r1",
        source="cortex/gateway/x",
        type="usage.recorded.v1",
        subject="r1",
        time=NOW,
        correlationid="c1",
        data=UsageRecordedV1.model_validate({name: getattr(DATA, name) for name in UsageData.__struct_fields__}),
    )
    assert envelope_id(line) == "r1"
    assert envelope_id(line[:-5]) is None


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}', Tokens(3, 0, 2)),
        (b'{"usage":{"prompt_tokens":3,"total_tokens":3}}', Tokens(3, 0, 0)),
        (b'{"usage":{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":2}}}', Tokens(3, 2, 0)),
        (b'{"usage":{"prompt_tokens":3,"prompt_tokens_details":null}}', Tokens(3, 0, 0)),
        (b'{"usage":null}', None),
        (b"{}", None),
        (b"garbage", None),
    ],
)
def test_reading_usage(body, tokens):
    assert read_usage(body) == tokens


@pytest.mark.parametrize(("body", "tokens"), [(b'{"prompt":"01234567890123"}', 4), (b"garbage..", 2), (b"{}", 1)])
def test_estimate(body, tokens):
    assert estimate_tokens(body) == tokens


@pytest.mark.parametrize(
    ("engine", "body", "path", "question"),
    [
        (
            "llamacpp",
            {"model": "m", "messages": [], "stream": True, "stream_options": {}, "tools": []},
            "/v1/chat/completions/input_tokens",
            {"model": "m", "messages": [], "tools": []},
        ),
        ("llamacpp", {"prompt": "x", "stream": True}, "/tokenize", {"content": "x", "add_special": True}),
        ("vllm", {"model": "m", "messages": [], "n": 2}, "/tokenize", {"model": "m", "messages": []}),
        ("vllm", {"model": "m", "prompt": "x"}, "/tokenize", {"model": "m", "prompt": "x"}),
    ],
)
def test_how_each_engine_is_asked_to_count(engine, body, path, question):
    [asked], known = counting_questions(EngineType(engine), "/v1/x", json.dumps(body).encode())
    assert (asked[0], json.loads(asked[1]), known) == (path, question, 0)


@pytest.mark.parametrize("engine", EngineType)
def test_messages_and_responses_are_counted_by_their_own_routes(engine):
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":4,"stream":true}'
    [(path, question)], _ = counting_questions(engine, "/v1/messages", body)
    assert path == "/v1/messages/count_tokens"
    assert "stream" not in json.loads(question)
    [(path, question)], _ = counting_questions(engine, "/v1/responses", b'{"model":"m","input":"x","instructions":"y"}')
    if engine is EngineType.LLAMACPP:
        assert (path, json.loads(question)["input"]) == ("/v1/responses/input_tokens", "x")
    else:
        assert [message["role"] for message in json.loads(question)["messages"]] == ["system", "user"]


def test_a_list_of_prompts_is_counted_one_by_one():
    questions, known = counting_questions(EngineType.VLLM, "/v1/completions", b'{"model":"m","prompt":["a","b"]}')
    assert [json.loads(question)["prompt"] for _, question in questions] == ["a", "b"]
    assert known == 0
    assert counting_questions(EngineType.VLLM, "/v1/completions", b'{"prompt":[1,2,3]}') == ([], 3)
    assert counting_questions(EngineType.VLLM, "/v1/completions", b'{"prompt":[[1],[2,3]]}') == ([], 3)


@pytest.mark.parametrize("body", [b"{}", b'{"prompt":7}', json.dumps({"prompt": ["x"] * 17}).encode()])
def test_what_no_engine_is_asked_to_count(body):
    assert counting_questions(EngineType.VLLM, "/v1/completions", body) == ([], 0)


@pytest.mark.parametrize(
    ("answer", "count"),
    [(b'{"input_tokens":7}', 7), (b'{"count":5,"tokens":[1]}', 5), (b'{"tokens":[1,2]}', 2), (b"{}", None)],
)
def test_counts(answer, count):
    assert read_count(answer) == count
