"""Events that repeat: passed on exactly as if each were looked at anew."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_gateway.domain.event_repeats import EventRepeats
from cortex_gateway.domain.levelling.names import model_rename, rename
from cortex_gateway.domain.streams import StreamLeveller, StreamPlan

RENAMES = model_rename("mine", "served")
TEXT = st.sampled_from(
    ["", "a", "usage", "error", 'say "hi"', "\\", "tail\\", "\n\ndata: [DONE]\n\n", "ü🦊", '","usage":{', "served"]
)
RAW = st.sampled_from([b"", b"a\n\ndata: [DONE]\n\n", b'","error":"x', b"\\", b'\\"', b"data: n", b"\r\n"])


def event(text: str, field: str = "content", **more: object) -> bytes:
    body = {"model": "served", "choices": [{"index": 0, "delta": {field: text}, "finish_reason": None}]} | more
    return b"data: " + json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


class Unlearned(EventRepeats):
    def learn(self, event: bytes) -> None: ...


def leveller(*, repeats: bool, renames: tuple[tuple[bytes, bytes], ...]) -> StreamLeveller:
    made = StreamLeveller(StreamPlan(wants_usage=True, renames=renames, chat=False))
    if not repeats:
        made._repeats = Unlearned(renames)
    return made


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.builds(event, TEXT, st.sampled_from(["content", "text", "reasoning_content", "tool"]))
        | st.builds(lambda raw: event("XX").replace(b"XX", raw), RAW)
        | st.sampled_from(
            [b": ping\n\n", b"data: [DONE]\n\n", event("x", usage={"prompt_tokens": 1, "completion_tokens": 2})]
        ),
        max_size=12,
    ),
    st.sampled_from([(), RENAMES]),
)
def test_a_stream_is_levelled_the_same_with_and_without_memory(
    events: list[bytes], renames: tuple[tuple[bytes, bytes], ...]
):
    quick, slow = leveller(repeats=True, renames=renames), leveller(repeats=False, renames=renames)
    for one in events:
        if quick.done or slow.done:
            break
        assert quick.feed(one) == slow.feed(one)
        assert (quick.events, quick.usage, quick.done) == (slow.events, slow.usage, slow.done)
    assert (quick.done, quick.error) == (slow.done, slow.error)
    assert quick.sent_tokens == slow.sent_tokens


def test_an_event_like_the_one_before_is_recognised_and_renamed():
    repeats = EventRepeats(RENAMES)
    repeats.learn(event("one"))
    for text in ("two", "", "ü", "a\\tb", "usage"):
        assert repeats.renamed(event(text)) == rename(event(text), RENAMES)
    for other in (
        event('say "hi"'),
        event("a") + event("b"),
        event("a", field="text"),
        event("a")[:-1],
        b"",
        event("a", id=1),
    ):
        assert repeats.renamed(other) == b""
    assert EventRepeats(()).renamed(event("one")) == b""
