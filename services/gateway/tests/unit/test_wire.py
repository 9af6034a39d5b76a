"""HTTP on the wire: one strict reading, and the same one as two other implementations where all three accept."""

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_gateway.entrypoints.options import BodyBudget, TrustedProxies
from cortex_gateway.wire.answers import AnswerHeads
from cortex_gateway.wire.chunks import ChunkDecoder
from cortex_gateway.wire.fields import LONGEST_KNOWN, MOST_KNOWN, BadMessageError, FieldLines, headers_of
from cortex_gateway.wire.requests import MOST_KNOWN_LINES, RequestHeads

HEAD = b"POST /v1/chat/completions?x=%C3%A4 HTTP/1.1\r\nHost: gateway:8080\r\nX-One:  a b \r\ncontent-LENGTH: 5\r\nx-one: c"


def test_a_head_is_read_as_it_was_meant():
    heads = RequestHeads(10)
    for _ in range(2):
        head = heads.read(HEAD)
        assert (head.line.method, head.line.path) == ("POST", "/v1/chat/completions")
        assert head.line.target == b"/v1/chat/completions?x=%C3%A4"
        assert head.headers == [
            (b"host", b"gateway:8080"),
            (b"x-one", b"a b"),
            (b"content-length", b"5"),
            (b"x-one", b"c"),
        ]
        assert head.index[b"x-one"] == b"a b"
        assert (head.length, head.chunked, head.keep_alive, head.expects_continue) == (5, False, True, False)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", "/"),
        (b"/a%20b/%C3%A4?c=%20", "/a b/ä"),
        (b"/%FF", "/\ufffd"),
        (b"/a//b/../c", "/a//b/../c"),
        (b"http://other/v1/models?x", "/v1/models"),
        (b"HTTPS://other", "/"),
    ],
)
def test_paths_are_decoded_once_and_never_repaired(target: bytes, path: str):
    assert RequestHeads(10).read(b"GET " + target + b" HTTP/1.1\r\nHost: a").line.path == path


def test_what_is_remembered_is_bounded_and_holds_no_secret():
    heads = RequestHeads(10)
    for number in range(MOST_KNOWN_LINES + MOST_KNOWN + 10):
        heads.read(
            b"GET /%d HTTP/1.1\r\nHost: a\r\nX-%d: b\r\nAuthorization: Bearer secret%d" % (number, number, number)
        )
    heads.read(b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * LONGEST_KNOWN)
    assert len(heads._lines) <= MOST_KNOWN_LINES
    known = heads._fields._known
    assert len(known) <= MOST_KNOWN
    assert all(len(line) <= LONGEST_KNOWN and b"secret" not in line for line in known)


@pytest.mark.parametrize(
    "part", [b"GET", b"GET /v1/mod", b"GET /v1 HTTP/1.1\r\nHost", b"GET /v1 HTTP/1.1\r\nHost: a\r"]
)
def test_a_beginning_that_may_become_a_head_is_waited_for(part: bytes):
    RequestHeads(10).check_beginning(part)


@pytest.mark.parametrize(
    "part", [b"\x16\x03", b"get /", b"GET /\r\n", b"GET / HTTP/1.1\nHost", b"GET / HTTP/1.1\r\nA\rB", b"G" * 30]
)
def test_a_beginning_that_cannot_become_a_head_is_refused(part: bytes):
    with pytest.raises(BadMessageError):
        RequestHeads(10).check_beginning(part)


TEXT = st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=12).map(lambda text: text.encode("latin-1"))
NAME = st.sampled_from([b"Host", b"Content-Length", b"Transfer-Encoding", b"X-One", b"Connection", b"Expect"]) | TEXT
VALUE = (
    st.sampled_from([b"chunked", b"5", b"05", b"gzip, chunked", b"close", b"a", b" 5", b"5 ", b"\t5", b"100-continue"])
    | TEXT
)
LINES = st.lists(st.tuples(NAME, st.sampled_from([b": ", b":", b" :", b":\t"]), VALUE).map(b"".join), max_size=4)


@pytest.mark.slow
@given(LINES, st.sampled_from([b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"POST / HTTP/1.0"]))
@settings(max_examples=300, deadline=None)
def test_what_is_accepted_means_the_same_to_other_servers(lines: list[bytes], first: bytes):
    head = b"\r\n".join([first, b"Host: a", *lines])
    if b"\r\n\r\n" in head + b"\r\n":
        return
    try:
        read = RequestHeads(20).read(head)
    except BadMessageError:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(head + b"\r\n\r\n")
    request = other.next_event()
    assert isinstance(request, h11.Request)
    assert list(request.headers) == read.headers
    assert request.target == read.line.target
    third = _Seen()
    parser = httptools.HttpRequestParser(third)
    parser.feed_data(head + b"\r\n\r\n" + (b"0\r\n\r\n" if read.chunked else b"x" * min(read.length, 1000)))
    assert [(name.lower(), value.strip()) for name, value in third.headers] == read.headers
    assert third.complete == (read.length <= 1000)


class _Seen:
    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_message_complete(self) -> None:
        self.complete = True


@pytest.mark.slow
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(1, 50), st.booleans())
@settings(max_examples=200, deadline=None)
def test_chunks_are_put_together_however_they_are_cut(parts: list[bytes], cut: int, extensions: bool):
    extension = b";a=b" if extensions else b""
    coded = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts) + b"0\r\nX: y\r\n\r\nNEXT"
    decoder = ChunkDecoder(extensions=extensions)
    found = b""
    for start in range(0, len(coded), cut):
        if decoder.done:
            break
        found += decoder.feed(coded[start : start + cut])
    assert decoder.done
    assert found == b"".join(parts)
    assert b"NEXT".startswith(decoder.rest)


@pytest.mark.slow
@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused_or_read_as_others_read_it(noise: bytes):
    decoder = ChunkDecoder(extensions=False)
    try:
        found = decoder.feed(noise)
    except BadMessageError:
        return
    if decoder.done:
        other = h11.Connection(h11.SERVER)
        other.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + noise)
        other.next_event()
        data = b""
        while isinstance(event := other.next_event(), h11.Data):
            data += bytes(event.data)
        assert isinstance(event, h11.EndOfMessage)
        assert data == found


@pytest.mark.parametrize(
    ("head", "status", "length", "chunked", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3", 200, 3, False, True),
        (b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked", 200, None, True, True),
        (b"HTTP/1.1 503", 503, None, False, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3", 200, 3, False, False),
        (b"HTTP/1.1 204 No\r\nContent-Length: 3", 204, 0, False, True),
        (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 3", 200, 3, False, False),
    ],
)
def test_heads_of_answers(head: bytes, status: int, length: int | None, chunked: bool, keep_alive: bool):
    read = AnswerHeads().read(head)
    assert (read.status, read.length, read.chunked, read.keep_alive) == (status, length, chunked, keep_alive)


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        ("", "10.0.0.1", ["1.1.1.1"], "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", "10.0.0.2", ["1.1.1.1"], "10.0.0.2"),
        ("10.0.0.0/8, ::1", "10.0.0.1", ["6.6.6.6, 1.1.1.1, 10.9.9.9"], "1.1.1.1"),
        ("10.0.0.0/8", "10.0.0.1", ["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
        ("10.0.0.0/8", "10.0.0.1", ["10.0.0.7, 10.0.0.8"], "10.0.0.7"),
        ("*", "9.9.9.9", ["1.1.1.1, 2.2.2.2"], "1.1.1.1"),
        ("::1", "::1", [], "::1"),
        ("proxy", "proxy", ["1.1.1.1"], "1.1.1.1"),
    ],
)
def test_only_trusted_proxies_name_the_client(trusted: str, peer: str, forwarded: list[str], client: str):
    assert TrustedProxies(trusted).client(peer, [value.encode() for value in forwarded]) == client


def test_the_budget_lets_one_large_body_in_and_no_more():
    budget = BodyBudget(100)
    assert budget.take(500)
    assert not budget.take(1)
    budget.give_back(500)
    assert budget.take(100)
    assert not budget.take(1)


def test_a_line_is_read_the_same_the_second_time():
    fields = FieldLines()
    first, second = headers_of(fields.read([b"A:b"])), headers_of(fields.read([b"A:b"]))
    assert first == second == [(b"a", b"b")]


def test_events_that_come_as_one_chunk_each_are_read_like_those_that_come_in_pieces():
    decoder = ChunkDecoder(extensions=True)
    assert [decoder.feed(b"5\r\nhello\r\n"), decoder.feed(b"0a\r\n0123\r\n6789\r\n")] == [b"hello", b"0123\r\n6789"]
    assert (decoder.feed(b"3\r\nab"), decoder.feed(b"c\r\n"), decoder.feed(b"1\r\nd\r\n")) == (b"ab", b"c", b"d")
    assert not decoder.done
    assert decoder.feed(b"0\r\n\r\nrest") == b""
    assert (decoder.done, decoder.rest) == (True, b"rest")


@pytest.mark.parametrize(
    "data", [b"5\r\nhello!\r\n", b"5\r\nhell\r\n0\r\n\r\n", b"1_0\r\n0123456789\r\n", b"+2\r\nab\r\n"]
)
def test_one_chunk_that_is_not_as_it_says_is_refused(data):
    with pytest.raises(BadMessageError):
        ChunkDecoder(extensions=True).feed(data)
