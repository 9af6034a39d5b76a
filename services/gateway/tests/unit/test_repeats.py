"""Heads that repeat: read from memory exactly as they would be read anew, or not at all."""

from datetime import UTC, datetime
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_gateway.domain.auth import build_key_ring
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.pipeline import key_of
from cortex_gateway.ports import Request
from cortex_gateway.wire.answers import AnswerHeads
from cortex_gateway.wire.fields import BadMessageError
from cortex_gateway.wire.repeats import LONGEST_HEAD, SAME_LENGTH, Repeats
from cortex_gateway.wire.requests import RequestHeads

END = b"\r\n\r\n"
HEAD = b"POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nAuthorization: Bearer x" + END
NO_LENGTH = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked" + END


def taught(head: bytes) -> Repeats:
    repeats = Repeats()
    assert repeats.learn(head)
    return repeats


@pytest.mark.parametrize("digits", [b"5", b"0", b"05", b"123456", b"9" * 18])
def test_another_length_is_the_same_head(digits: bytes):
    again = HEAD.replace(b": 5", b": " + digits)
    assert taught(HEAD).match(again + b"body") == (len(again), int(digits))


@pytest.mark.parametrize(
    "digits", [b"", b"-1", b"+1", b" 5", b"5 ", b"5, 5", b"0x5", b"\xb2", b"9" * 19, b"5\r\nX: y", b"5\n"]
)
def test_what_is_no_length_is_read_in_full(digits: bytes):
    assert taught(HEAD).match(HEAD.replace(b": 5", b": " + digits)) == (0, 0)


def test_a_head_without_a_length_repeats_as_it_is():
    repeats = taught(NO_LENGTH)
    assert repeats.match(NO_LENGTH + b"5\r\nhello") == (len(NO_LENGTH), SAME_LENGTH)
    assert repeats.match(NO_LENGTH[:-1]) == (0, 0)
    assert repeats.match(NO_LENGTH.replace(b"models", b"modelx")) == (0, 0)
    assert Repeats().match(NO_LENGTH) == (0, 0)
    assert Repeats().match(b"") == (0, 0)


def test_a_part_of_a_head_is_no_head():
    repeats = taught(HEAD)
    assert all(repeats.match(HEAD[:size]) == (0, 0) for size in range(len(HEAD)))


def test_heads_that_always_differ_are_not_learnt_again():
    repeats = taught(HEAD)
    assert not repeats.learn(HEAD.replace(b"Host: a", b"Host: b"))
    assert repeats.match(HEAD)[0]
    assert repeats.learn(HEAD.replace(b"Host: a", b"Host: b"))
    assert not Repeats().learn(HEAD[:-4] + b"\r\nX: " + b"a" * LONGEST_HEAD + END)


NAME = st.sampled_from(
    [b"Content-Length", b"content-length", b"X-Content-Length", b"Transfer-Encoding", b"X", b"Host", b"Expect"]
)
VALUE = st.sampled_from(
    [b"5", b"05", b" 5", b"5 ", b"chunked", b"12", b"a", b"content-length: 7", b"100-continue", b""]
)
LINES = st.lists(st.tuples(NAME, VALUE), max_size=5)


def head_of(lines: list[tuple[bytes, bytes]], first: bytes) -> bytes:
    return first + b"".join(b"\r\n%b:%b" % line for line in lines)


@settings(max_examples=400, deadline=None)
@given(LINES, LINES)
def test_a_request_from_memory_is_what_would_have_been_read(
    before: list[tuple[bytes, bytes]], after: list[tuple[bytes, bytes]]
):
    heads, repeats = RequestHeads(20), Repeats()
    known, other = (head_of(lines, b"POST / HTTP/1.1\r\nHost: a") for lines in (before, after))
    try:
        read = heads.read(known)
    except BadMessageError:
        return
    repeats.learn(known + END)
    for head in (known, known.replace(b"5", b"17"), other):
        end, length = repeats.match(head + END)
        if not end:
            continue
        again, anew = read.repeated(length), heads.read(head)
        assert end == len(head + END)
        shown = {
            name: value.lstrip(b"0") if name == b"content-length" else value for name, value in again.index.items()
        }
        meant = {name: value.lstrip(b"0") if name == b"content-length" else value for name, value in anew.index.items()}
        assert shown == meant
        assert [name for name, _ in again.headers] == [name for name, _ in anew.headers]
        assert (again.line, again.length, again.chunked) == (anew.line, anew.length, anew.chunked)
        assert (again.keep_alive, again.expects_continue) == (anew.keep_alive, anew.expects_continue)


def test_an_answer_from_memory_is_what_would_have_been_read():
    head = b"HTTP/1.1 200 OK\r\ndate: x\r\ncontent-length: 12\r\ncontent-type: text/plain"
    heads, repeats = AnswerHeads(), taught(head + END)
    other = head.replace(b"12", b"3456")
    end, length = repeats.match(other + END + b"body")
    again, anew = heads.read(head).repeated(length), heads.read(other)
    assert end == len(other + END)
    assert (again.status, again.length, again.index, again.headers) == (
        anew.status,
        anew.length,
        anew.index,
        anew.headers,
    )
    assert (again.keep_alive, again.chunked) == (anew.keep_alive, anew.chunked)


def test_a_remembered_key_is_looked_up_each_time(key):
    secret = b"ctx-0123456789abcdef"
    digest = sha256(secret).hexdigest()
    now = datetime(2026, 1, 2, tzinfo=UTC)

    async def nothing() -> bytes:
        return b""

    request = Request("GET", "/", [(b"authorization", b"Bearer " + secret)], "10.1.2.3", nothing)
    ring = build_key_ring({"k1": key(digest)})
    assert key_of(ring, request, now) is key_of(ring, request, now)
    assert request.memo.key_digest == bytes.fromhex(digest)
    changed = build_key_ring({"k1": key(digest, expires_at=now)})
    limited = build_key_ring({"k1": key(digest, ip_allowlist=("192.168.0.0/16",))})
    for refusing, status in ((changed, 401), (limited, 403), ({}, 401)):
        with pytest.raises(ApiError) as refused:
            key_of(refusing, request, now)
        assert refused.value.status == status
