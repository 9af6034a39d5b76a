"""Answers that the server gives by itself, before or instead of a handler."""

from cortex_gateway.domain.errors import ApiError
from cortex_gateway.entrypoints.reply import phrase
from cortex_gateway.wire.fields import BadMessageError


def as_api_error(error: BadMessageError) -> ApiError:
    """What the sender of a bad message is told."""
    return ApiError(error.status, "bad_request", str(error))


def refusal(error: ApiError, date_line: bytes) -> bytes:
    """A whole answer that ends the connection."""
    body = error.body()
    lines = [*error.headers(), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    head = b"".join(b"%b: %b\r\n" % line for line in lines)
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n%b" % (error.status, phrase(error.status), head, date_line, body)


def head_too_long(limit: int) -> BadMessageError:
    return BadMessageError("too_large", f"The head of the request is larger than {limit} bytes.", 431)


def bodies_full() -> ApiError:
    """The gateway holds as many bytes of bodies as it may."""
    return ApiError(503, "gateway_busy", "This gateway is busy with other large requests; try again.", retry_after_s=1)


def too_many_connections() -> ApiError:
    return ApiError(503, "gateway_busy", "Too many connections; try again.", retry_after_s=1)
