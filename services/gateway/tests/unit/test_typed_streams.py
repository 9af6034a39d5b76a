import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_gateway.domain.dialects import Dialect, dialect_of, error_body
from cortex_gateway.domain.errors import model_not_found
from cortex_gateway.domain.levelling.responses import ResponseEvents
from cortex_gateway.domain.typed_streams import MessagesLeveller, ResponsesLeveller
from cortex_gateway.domain.usage import Tokens


def event(kind: str, **members: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members}, separators=(',', ':'))}\n\n".encode()


DELTA = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"})
MESSAGE = (
    event("message_start", message={"model": "m", "usage": {"input_tokens": 1, "cache_read_input_tokens": 31}})
    + event("content_block_start", index=0)
    + DELTA * 3
    + event("content_block_stop", index=0)
    + event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3})
    + event("message_stop")
)
RESPONSE = (
    event("response.created", response={"model": "m", "usage": None})
    + event("response.output_text.delta", delta="a") * 2
    + event(
        "response.completed",
        response={
            "model": "m",
            "usage": {"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}},
        },
    )
)


@given(st.lists(st.integers(1, 80), max_size=20))
def test_messages_split_anywhere_are_passed_on_and_counted(sizes):
    leveller = MessagesLeveller(())
    out, position = b"", 0
    for size in [*sizes, len(MESSAGE)]:
        if part := MESSAGE[position : position + size]:
            out += leveller.feed(part)
        position += size
    assert out == MESSAGE
    assert leveller.done
    assert leveller.usage == Tokens(prompt=32, cached=31, completion=3)
    assert leveller.sent_tokens == 3
    assert leveller.tail() == b""


def test_what_a_client_got_of_messages_before_it_left_is_counted_without_usage():
    leveller = MessagesLeveller(())
    leveller.feed(MESSAGE[: MESSAGE.index(DELTA) + 2 * len(DELTA)])
    assert leveller.usage is None
    assert leveller.sent_tokens == 2


@given(st.lists(st.integers(1, 80), max_size=20))
def test_responses_split_anywhere_are_passed_on_and_counted(sizes):
    leveller = ResponsesLeveller((), None)
    out, position = b"", 0
    for size in [*sizes, len(RESPONSE)]:
        if part := RESPONSE[position : position + size]:
            out += leveller.feed(part)
        position += size
    assert out == RESPONSE
    assert leveller.done
    assert leveller.usage == Tokens(prompt=9, cached=4, completion=2)
    assert leveller.sent_tokens == 2


@pytest.mark.parametrize("leveller", [MessagesLeveller(()), ResponsesLeveller((), None)])
def test_an_error_in_the_middle_is_one_error_event_without_an_end_marker(leveller):
    broken = b'event: error\ndata: {"type":"error","error":{"type":"internal_error","message":"boom"}}\n\n'
    assert leveller.feed(broken) == b""
    assert leveller.done
    tail = leveller.tail()
    assert tail.startswith(b"event: error\ndata: ")
    assert tail.count(b"\n\n") == 1
    assert json.loads(tail.partition(b"data: ")[2])["error"]["message"] == "boom"
    assert b"[DONE]" not in tail


def test_llamas_responses_get_positions_numbers_and_the_whole_object():
    leveller = ResponsesLeveller((), ResponseEvents("m", 2))
    stream = (
        event("response.created", response={"id": "r", "object": "response", "status": "in_progress"})
        + event("response.output_item.added", item={"id": "i"})
        + event("response.content_part.added", item_id="i", part={"type": "output_text", "text": ""})
        + event("response.output_text.delta", item_id="i", delta="a")
        + event("response.completed", response={"id": "r", "status": "completed", "usage": {"output_tokens": 2}})
    )
    seen = [json.loads(line[6:]) for line in leveller.feed(stream).split(b"\n") if line.startswith(b"data: ")]
    assert [one["sequence_number"] for one in seen] == [0, 1, 2, 3, 4]
    assert (seen[3]["output_index"], seen[3]["content_index"], seen[3]["logprobs"]) == (0, 0, [])
    assert seen[2]["part"]["annotations"] == []
    assert seen[0]["response"]["output"] == []
    assert seen[4]["response"]["status"] == "incomplete"
    assert seen[4]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/messages", Dialect.ANTHROPIC),
        ("/v1/messages/count_tokens", Dialect.ANTHROPIC),
        ("/v1/messagesx", Dialect.OPENAI),
        ("/v1/chat/completions", Dialect.OPENAI),
    ],
)
def test_each_path_has_the_errors_of_its_api(path, dialect):
    assert dialect_of(path) is dialect
    body = json.loads(error_body(model_not_found("x"), dialect, "id-1"))
    if dialect is Dialect.ANTHROPIC:
        assert (body["type"], body["request_id"], body["error"]["type"]) == ("error", "id-1", "not_found_error")
    assert body["error"]["code"] == "model_not_found"
