"""W3C trace context, and the decision to sample."""

import asyncio
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_kit.tracing import Sampler, TraceContext, Tracing, TracingConfig, decide, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_we_send_is_what_we_read(trace_id: int, span_id: int, sampled: bool):
    context = TraceContext(trace_id, span_id, sampled)
    assert parse_traceparent(context.header()) == context


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-will-be", True),
    ],
)
def test_a_valid_traceparent_is_read(header: str, sampled: bool):
    assert parse_traceparent(header.encode()) == TraceContext(int(TRACE, 16), int(SPAN, 16), sampled)


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"00",
        f"ff-{TRACE}-{SPAN}-01".encode(),
        f"00-{TRACE}-{SPAN}-01-more".encode(),
        f"00-{TRACE}-{SPAN}-1".encode(),
        f"00-{TRACE.upper()}-{SPAN}-01".encode(),
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f" 00-{TRACE}-{SPAN}-01".encode(),
        f"00-{TRACE}-{SPAN}-01\r\nx: y".encode(),
        f"cc-{TRACE}-{SPAN}-01more".encode(),
    ],
)
def test_anything_else_is_no_traceparent(header: bytes | None):
    assert parse_traceparent(header) is None


@given(st.binary(max_size=80))
def test_no_bytes_are_an_exception(header: bytes):
    parse_traceparent(header)


@pytest.mark.parametrize(
    ("sampler", "alone", "under_sampled", "under_unsampled"),
    [
        (Sampler.ALWAYS_ON, True, True, True),
        (Sampler.ALWAYS_OFF, False, False, False),
        (Sampler.PARENT_ALWAYS_ON, True, True, False),
        (Sampler.PARENT_ALWAYS_OFF, False, True, False),
    ],
)
def test_the_samplers_are_those_of_the_standard(
    sampler: Sampler, alone: bool, under_sampled: bool, under_unsampled: bool
):
    parents = (None, TraceContext(1, 1, sampled=True), TraceContext(1, 1, sampled=False))
    assert tuple(decide(sampler, 1.0, parent, 7) for parent in parents) == (alone, under_sampled, under_unsampled)


def test_a_ratio_is_one_of_trace_ids_and_the_same_for_every_service():
    ids = [n * (2**128 // 1000) + n * (2**64 // 1000) for n in range(1000)]
    chosen = [decide(Sampler.RATIO, 0.25, None, trace_id) for trace_id in ids]
    assert 200 < sum(chosen) < 300
    assert chosen == [decide(Sampler.PARENT_RATIO, 0.25, None, trace_id) for trace_id in ids]
    assert not any(decide(Sampler.RATIO, 0.0, None, trace_id) for trace_id in ids)
    assert all(decide(Sampler.RATIO, 1.0, None, trace_id) for trace_id in ids)


@pytest.mark.slow
async def test_a_collector_that_does_not_answer_delays_no_exit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cortex_kit.tracing.CLOSE_TIMEOUT_S", 0.5)
    before = set(threading.enumerate())
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(5)
        tracing = Tracing(TracingConfig("test", "1", f"http://127.0.0.1:{deaf.getsockname()[1]}/v1/traces"))
        span = tracing.start("chat", None)
        assert span is not None
        span.end()
        async with asyncio.timeout(10):
            await tracing.close()
    assert all(thread.daemon for thread in threading.enumerate() if thread not in before)
