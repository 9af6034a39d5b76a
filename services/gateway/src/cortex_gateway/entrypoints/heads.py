"""The beginning of a request, while the rest of its head is still on its way."""

from cortex_gateway.entrypoints.refusals import head_too_long
from cortex_gateway.wire.requests import RequestHeads

END_OF_HEAD = b"\r\n\r\n"
_ALWAYS_CHECKED = 256


class PartialHead:
    """Collects a head that comes in pieces; what cannot become one any more is refused at once."""

    __slots__ = ("_bytes", "_heads", "_limit")

    def __init__(self, heads: RequestHeads, limit: int) -> None:
        self._heads = heads
        self._limit = limit
        self._bytes = bytearray()

    def add(self, data: bytes) -> bytes | None:
        """All bytes so far once the head is whole, else None.

        Raises:
            BadMessageError: too long, or no beginning of a request.
        """
        before = len(self._bytes)
        self._bytes += data
        if self._bytes.find(END_OF_HEAD, max(0, before - 3)) > 0:
            return bytes(self._bytes)
        if len(self._bytes) > self._limit:
            raise head_too_long(self._limit)
        if before < _ALWAYS_CHECKED or b"\n" in data:
            # One empty line before a request is let pass (RFC 9112, 2.2).
            part = bytes(self._bytes).removeprefix(b"\r\n")
            if part not in (b"", b"\r"):
                self._heads.check_beginning(part)
        return None
