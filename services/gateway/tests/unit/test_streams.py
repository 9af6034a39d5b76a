import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_gateway.domain.streams import DONE_EVENT, StreamLeveller, StreamPlan
from cortex_gateway.domain.usage import Tokens


def event(**members) -> bytes:
    return b"data: " + json.dumps(members, separators=(",", ":")).encode() + b"\n\n"


def usage(prompt, completion, cached=0):
    return {
        "completion_tokens": completion,
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


ROLE = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": None}}])
TEXT = event(choices=[{"index": 0, "delta": {"content": 'say "usage" and data: {x}\n\n'}}])
FINISH = event(choices=[{"index": 0, "finish_reason": "stop", "delta": {}}])
USAGE = event(choices=[], usage=usage(31, 3, 30), timings={"x": 1})


def run(leveller: StreamLeveller, chunks) -> bytes:
    out = b""
    for chunk in chunks:
        out += leveller.feed(chunk)
        if leveller.done:
            return out + leveller.tail()
    return out


def test_plain_chunks_are_the_very_same_object():
    leveller = StreamLeveller(StreamPlan(wants_usage=False))
    assert leveller.feed(TEXT) is TEXT
    assert leveller.feed(ROLE + TEXT) == ROLE + TEXT
    assert leveller.events == 3


@pytest.mark.parametrize("split", [1, 7, 10_000])
def test_what_was_sent_is_counted_without_the_events_that_only_name_the_role(split):
    """llama.cpp names no role when its first token is a part of a character: all its events are tokens then."""

    def sent(stream: bytes, **plan) -> int:
        leveller = StreamLeveller(StreamPlan(wants_usage=False, **plan))
        for start in range(0, len(stream), split):
            leveller.feed(stream[start : start + split])
        return leveller.sent_tokens

    second = ROLE.replace(b'"index":0', b'"index":1')
    quoted = event(choices=[{"index": 0, "delta": {"content": 'say "role":'}}])
    assert sent(ROLE + TEXT + TEXT) == 2
    assert sent(TEXT + TEXT) == 2
    assert sent(quoted + TEXT) == 2
    assert sent(ROLE) == 0
    assert sent(ROLE + TEXT + second + TEXT, choices_per_prompt=2) == 2
    assert sent(ROLE + TEXT + TEXT, choices_per_prompt=2) == 2
    assert sent(TEXT + TEXT, chat=False) == 2


@pytest.mark.parametrize("wants", [True, False])
def test_the_usage_chunk_is_shown_only_to_who_asked(wants):
    leveller = StreamLeveller(StreamPlan(wants_usage=wants))
    out = run(leveller, [ROLE, TEXT, FINISH, USAGE, DONE_EVENT])
    assert out == ROLE + TEXT + FINISH + (USAGE if wants else b"") + DONE_EVENT
    assert leveller.usage == Tokens(prompt=31, cached=30, completion=3)
    assert leveller.error is None


@given(st.lists(st.integers(1, 60), max_size=30), st.booleans())
def test_any_split_of_the_bytes_gives_the_same_stream(sizes, crlf):
    stream = b": ping\n\n" + ROLE + TEXT + FINISH + USAGE + DONE_EVENT
    sent = stream.replace(b"\n", b"\r\n") if crlf else stream
    chunks, position = [], 0
    for size in sizes:
        chunks.append(sent[position : position + size])
        position += size
    chunks.append(sent[position:])
    leveller = StreamLeveller(StreamPlan(wants_usage=False))
    assert run(leveller, [chunk for chunk in chunks if chunk]) == b": ping\n\n" + ROLE + TEXT + FINISH + DONE_EVENT
    assert leveller.events == 3
    assert leveller.usage == Tokens(prompt=31, cached=30, completion=3)


@pytest.mark.parametrize("wants", [True, False])
def test_llama_completions_usage_moves_from_the_finish_chunk_to_one_of_its_own(wants):
    leveller = StreamLeveller(StreamPlan(wants_usage=wants, collect=True, choices_per_prompt=2, per_prompt=True))
    finishes = [
        event(choices=[{"text": "", "index": i}], id="c", usage=usage(p, 2)) for i, p in enumerate([1, 1, 4, 4])
    ]
    out = run(leveller, [finishes[0], b"data: null\n\n", *finishes[1:], DONE_EVENT])
    events = [json.loads(line[6:]) for line in out.split(b"\n\n") if line.startswith(b"data: {")]
    assert all("usage" not in one for one in events[:4])
    assert leveller.usage == Tokens(prompt=5, completion=8)
    assert b"null\n\n" not in out
    if wants:
        assert events[4] == {"choices": [], "id": "c", "usage": usage(5, 8)}
    assert len(events) == (5 if wants else 4)
    assert out.endswith(DONE_EVENT)


def test_usage_of_several_chat_choices_is_summed_with_the_prompt_once():
    leveller = StreamLeveller(StreamPlan(wants_usage=True, collect=True, choices_per_prompt=2))
    out = run(leveller, [ROLE, USAGE, TEXT, USAGE, DONE_EVENT])
    assert leveller.usage == Tokens(prompt=31, cached=30, completion=6)
    assert out.count(b'"usage":{') == 1
    assert b"timings" not in out


def test_continuous_usage_of_vllm_counts_once():
    leveller = StreamLeveller(StreamPlan(wants_usage=True))
    chunks = [event(choices=[{"index": 0}], usage=usage(9, n)) for n in (1, 2, 3)]
    assert run(leveller, [*chunks, DONE_EVENT]) == b"".join(chunks) + DONE_EVENT
    assert leveller.usage == Tokens(prompt=9, completion=3)


def test_an_error_in_the_middle_ends_the_stream_in_one_shape():
    leveller = StreamLeveller(StreamPlan(wants_usage=False))
    broken = b'data: {"error":{"code":500,"message":"boom","type":"server_error"}}\n\n'
    out = run(leveller, [TEXT + broken + TEXT])
    assert out.startswith(TEXT)
    assert out.endswith(b"\n\n" + DONE_EVENT)
    assert json.loads(out[len(TEXT) + 6 : -len(DONE_EVENT)])["error"]["code"] == "engine_error"
    assert leveller.error is not None


def test_null_usage_and_null_error_are_left_alone():
    leveller = StreamLeveller(StreamPlan(wants_usage=False))
    chunk = event(choices=[{"index": 0}], usage=None, error=None)
    assert leveller.feed(chunk) == chunk
    assert leveller.usage is None


def test_what_is_no_json_is_passed_on():
    leveller = StreamLeveller(StreamPlan(wants_usage=False))
    assert leveller.feed(b'data: {"usage"\n\n') == b'data: {"usage"\n\n'
