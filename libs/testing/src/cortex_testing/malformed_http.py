"""Requests that no server should act on, by what is wrong with them. Each is sent as it stands, on a connection of its own."""

CRLF = b"\r\n"
BODY = b'{"model":"m"}'
INNER = b"POST /v1/chat/completions HTTP/1.1\r\nHost: inner\r\nContent-Length: 13\r\n\r\n" + BODY
"""A second request, hidden where a lax server would find one."""


def post(
    *lines: bytes, body: bytes = b"", target: bytes = b"/v1/chat/completions", version: bytes = b"HTTP/1.1"
) -> bytes:
    first = b"POST " + target + b" " + version
    return CRLF.join([first, b"Host: gateway", *lines]) + CRLF * 2 + body


def get(*lines: bytes, first: bytes = b"GET /v1/models HTTP/1.1", host: bytes = b"Host: gateway") -> bytes:
    return CRLF.join([first, host, *lines]) + CRLF * 2


def chunked(body: bytes, *lines: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", *lines, body=body)


FRAMING = {
    "length and chunked": post(b"Content-Length: 13", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + INNER),
    "chunked and length": post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n" + INNER),
    "length zero and chunked": post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + INNER),
    "two equal lengths": post(b"Content-Length: 13", b"Content-Length: 13", body=BODY + INNER),
    "two lengths": post(b"Content-Length: 13", b"Content-Length: 0", body=BODY + INNER),
    "list of lengths": post(b"Content-Length: 13, 13", body=BODY),
    "length with sign": post(b"Content-Length: +13", body=BODY),
    "negative length": post(b"Content-Length: -1", body=BODY + INNER),
    "hexadecimal length": post(b"Content-Length: 0xd", body=BODY),
    "length with letters": post(b"Content-Length: 13a", body=BODY),
    "length with a fraction": post(b"Content-Length: 13.0", body=BODY),
    "length with an exponent": post(b"Content-Length: 1e3", body=BODY),
    "length with white space inside": post(b"Content-Length: 1 3", body=BODY),
    "length with an underscore": post(b"Content-Length: 1_3", body=BODY),
    "length in other digits": post("Content-Length: ١٣".encode(), body=BODY),
    "empty length": post(b"Content-Length:", body=BODY + INNER),
    "length of 30 digits": post(b"Content-Length: " + b"9" * 30),
    "length beyond 64 bits": post(b"Content-Length: 18446744073709551617", body=BODY + INNER),
    "length beyond the limit": post(b"Content-Length: 999999999999999", body=BODY),
    "quoted length": post(b'Content-Length: "13"', body=BODY),
    "folded length": post(b"Content-Length:", b" 13", body=BODY),
    "two transfer codings": post(
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + INNER
    ),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n" + INNER),
    "gzip, then chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n" + INNER),
    "chunked, then identity": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + INNER),
    "identity": post(b"Transfer-Encoding: identity", b"Content-Length: 13", body=BODY + INNER),
    "identity alone": post(b"Transfer-Encoding: identity", body=INNER),
    "unknown transfer coding": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + INNER),
    "quoted transfer coding": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n" + INNER),
    "transfer coding with a parameter": post(b"Transfer-Encoding: chunked;q=1", body=b"0\r\n\r\n" + INNER),
    "transfer coding after a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + INNER),
    "empty transfer coding": post(b"Transfer-Encoding:", b"Content-Length: 13", body=BODY + INNER),
    "chunked in HTTP/1.0": post(b"Transfer-Encoding: chunked", version=b"HTTP/1.0", body=b"0\r\n\r\n" + INNER),
    "folded transfer coding": post(b"Transfer-Encoding:", b" chunked", b"Content-Length: 5", body=b"0\r\n\r\n" + INNER),
}

HEADERS = {
    "space before the colon": post(b"Content-Length : 13", body=BODY),
    "tab before the colon": post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n" + INNER),
    "folded header": get(b"X-One: a", b" b"),
    "header folded by a tab": get(b"X-One: a", b"\tb"),
    "first header folded": b"GET /v1/models HTTP/1.1\r\n Host: gateway\r\n\r\n",
    "no colon": get(b"X-One"),
    "no name": get(b": value"),
    "NUL in a value": get(b"X-One: a\0b"),
    "NUL in a name": get(b"X-\0One: a"),
    "bare CR in a value": get(b"X-One: a\rX-Two: b"),
    "bare LF between headers": get(b"X-One: a\nX-Two: b"),
    "bare LF everywhere": b"GET /v1/models HTTP/1.1\nHost: gateway\n\n",
    "bare CR everywhere": b"GET /v1/models HTTP/1.1\rHost: gateway\r\r",
    "CR CR LF": b"GET /v1/models HTTP/1.1\r\nHost: gateway\r\r\n\r\n",
    "bare LF ends the head": b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Length: 13\n\r\n" + BODY,
    "control character in a value": get(b"X-One: \x01"),
    "DEL in a value": get(b"X-One: a\x7f"),
    "bracket in a name": get(b"X[One]: a"),
    "letter beyond ASCII in a name": get("X-Öne: a".encode()),
    "quote in a name": get(b'"Host": a'),
    "no Host": b"GET /v1/models HTTP/1.1\r\nAccept: */*\r\n\r\n",
    "two Hosts": get(b"Host: other"),
    "Host with a path": get(host=b"Host: gateway/v1"),
    "Host with white space": get(host=b"Host: gate way"),
    "Host with a user": get(host=b"Host: user@gateway"),
    "two Authorizations": get(b"Authorization: Bearer one", b"Authorization: Bearer two"),
    "too many headers": get(*[b"X-%d: a" % number for number in range(200)]),
    "one header too long": get(b"X-One: " + b"a" * 100_000),
    "a name too long": get(b"X" * 100_000 + b": a"),
    "unknown expectation": post(b"Expect: 200-ok", b"Content-Length: 13"),
    "two expectations": post(b"Expect: 100-continue", b"Expect: 100-continue", b"Content-Length: 13"),
    "websocket": get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
}

REQUEST_LINES = {
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "HTTP/0.9 without an end": b"GET /v1/models\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0": get(first=b"GET /v1/models HTTP/2.0"),
    "HTTP/1.2": get(first=b"GET /v1/models HTTP/1.2"),
    "HTTP/1.10": get(first=b"GET /v1/models HTTP/1.10"),
    "HTTP/1": get(first=b"GET /v1/models HTTP/1"),
    "http/1.1": get(first=b"GET /v1/models http/1.1"),
    "RTSP": get(first=b"GET /v1/models RTSP/1.0"),
    "no version": get(first=b"GET /v1/models "),
    "space after the version": get(first=b"GET /v1/models HTTP/1.1 "),
    "two spaces": get(first=b"GET  /v1/models HTTP/1.1"),
    "two spaces before the version": get(first=b"GET /v1/models  HTTP/1.1"),
    "tab for a space": get(first=b"GET\t/v1/models HTTP/1.1"),
    "space before the method": get(first=b" GET /v1/models HTTP/1.1"),
    "method in lower case": get(first=b"get /v1/models HTTP/1.1"),
    "method with a control character": get(first=b"GE\x01T /v1/models HTTP/1.1"),
    "method too long": get(first=b"G" * 500 + b" /v1/models HTTP/1.1"),
    "endless method": b"G" * 1000,
    "CONNECT": get(first=b"CONNECT engine:8000 HTTP/1.1"),
    "relative target": get(first=b"GET v1/models HTTP/1.1"),
    "space in the target": get(first=b"GET /v1/mo dels HTTP/1.1"),
    "NUL in the target": get(first=b"GET /v1/\0 HTTP/1.1"),
    "escaped NUL in the target": get(first=b"GET /v1/%00 HTTP/1.1"),
    "letter beyond ASCII in the target": get(first="GET /v1/ü HTTP/1.1".encode()),
    "broken escape in the target": get(first=b"GET /v1/%zz HTTP/1.1"),
    "fragment in the target": get(first=b"GET /v1/models#a HTTP/1.1"),
    "star": get(first=b"GET * HTTP/1.1"),
    "another scheme": get(first=b"GET ftp://gateway/v1/models HTTP/1.1"),
    "CR in the target": get(first=b"GET /v1/\rmodels HTTP/1.1"),
    "target too long": get(first=b"GET /" + b"a" * 20_000 + b" HTTP/1.1"),
    "three empty lines first": CRLF * 3 + get(),
    "TLS to a plain port": bytes.fromhex("16030100c8010000c40303") + b"\x00" * 50,
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "noise": bytes(range(256)),
}

CHUNKS = {
    "no size": chunked(b"\r\nabc\r\n0\r\n\r\n"),
    "size that is no number": chunked(b"zz\r\nabc\r\n0\r\n\r\n"),
    "negative size": chunked(b"-1\r\nabc\r\n0\r\n\r\n"),
    "size with 0x": chunked(b"0x3\r\nabc\r\n0\r\n\r\n"),
    "size with a sign": chunked(b"+3\r\nabc\r\n0\r\n\r\n"),
    "size with white space before it": chunked(b" 3\r\nabc\r\n0\r\n\r\n"),
    "size with white space after it": chunked(b"3 \r\nabc\r\n0\r\n\r\n"),
    "size with an underscore": chunked(b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n"),
    "size beyond 64 bits": chunked(b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    "size with many zeros": chunked(b"0" * 300 + b"3\r\nabc\r\n0\r\n\r\n"),
    "size without an end": chunked(b"1" * 300),
    "LF after the size": chunked(b"3\nabc\r\n0\r\n\r\n"),
    "LF after the data": chunked(b"3\r\nabc\n0\r\n\r\n"),
    "CR after the size": chunked(b"3\rabc\r\n0\r\n\r\n"),
    "data longer than the size": chunked(b"3\r\nabcdef\r\n0\r\n\r\n"),
    "data without an end": chunked(b"3\r\nabc0\r\n\r\n"),
    "extension": chunked(b"3;name=value\r\nabc\r\n0\r\n\r\n"),
    "LF in an extension": chunked(b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    "long extension": chunked(b"3;" + b"a" * 70_000 + b"\r\nabc\r\n0\r\n\r\n"),
    "size beyond the limit": chunked(b"fffffff0\r\n" + b"a" * 70_000),
    "LF after the last chunk": chunked(b"0\n\n" + INNER),
    "bad trailer": chunked(b"0\r\nbad trailer\r\n\r\n" + INNER),
    "endless trailers": chunked(b"0\r\n" + b"X-One: a\r\n" * 2000 + CRLF),
    "folded trailer": chunked(b"0\r\nX-One: a\r\n b\r\n\r\n" + INNER),
}

MALFORMED = {
    f"{kind}: {name}": request
    for kind, cases in {"framing": FRAMING, "header": HEADERS, "request line": REQUEST_LINES, "chunks": CHUNKS}.items()
    for name, request in cases.items()
}
