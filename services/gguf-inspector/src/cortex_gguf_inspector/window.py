"""A sequential reader over positioned reads: bounded memory, bounded time, no page faults on a file that shrinks."""

import hashlib
import os
import struct
import sys
import time
from collections.abc import Callable, Iterable
from itertools import repeat
from operator import length_hint
from typing import Protocol

from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.ggml import SCALAR_FORMATS, ValueType
from cortex_gguf_inspector.limits import MAX_STRING_BYTES, Limits

CHUNK_BYTES = 256 * 1024
NUMBER_COST = 40
"""Memory of a kept number: the object and the reference to it."""
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
SCALARS = {value_type: struct.Struct(f"<{letter}") for value_type, letter in SCALAR_FORMATS.items()}


class Source(Protocol):
    """Random access to the bytes of one file, whose size was taken once."""

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
        ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of the file. Raises OSError."""
        ...


class FileSource:
    """An open regular file. Does not own the descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        while data and len(data) < length:
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data


class BytesSource:
    """A file in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class Window:
    """Reads little-endian values in order through one moving buffer, hashing what it passes.

    Every method raises GgufError: `gguf_truncated` at the end of the file, `gguf_corrupt` for what no file can hold,
    `gguf_limit_exceeded` for what we are not willing to read.
    """

    def __init__(
        self, source: Source, limits: Limits, clock: Callable[[], float] = time.monotonic, *, start: int = 0
    ) -> None:
        self._source = source
        self._limits = limits
        self._clock = clock
        self._deadline = clock() + limits.time_budget_s
        self._base = start
        self._position = 0
        self._buffer = b""
        self._hash = hashlib.sha256()
        self._kept = 0

    @property
    def offset(self) -> int:
        """Position in the file."""
        return self._base + self._position

    @property
    def kept(self) -> int:
        """Memory that the kept texts and numbers take, in bytes."""
        return self._kept

    @property
    def remaining(self) -> int:
        """Bytes of the file that were not passed yet."""
        return self._source.size - self.offset

    def skip_magic(self) -> None:
        """Pass the four bytes that `sniff` has checked."""
        self._need(4)
        self._position += 4

    def u32(self) -> int:
        """The next 32 bits as an unsigned number."""
        self._need(4)
        (value,) = U32.unpack_from(self._buffer, self._position)
        self._position += 4
        return value

    def u64(self) -> int:
        """The next 64 bits as an unsigned number."""
        self._need(8)
        (value,) = U64.unpack_from(self._buffer, self._position)
        self._position += 8
        return value

    def scalar(self, value_type: ValueType) -> int | float | bool:
        """One value of a fixed-size type."""
        layout = SCALARS[value_type]
        self._need(layout.size)
        (value,) = layout.unpack_from(self._buffer, self._position)
        self._position += layout.size
        return value

    def scalars(self, value_type: ValueType, count: int) -> tuple[int | float | bool, ...]:
        """`count` values as a tuple, counted against the memory budget: only for counts that were checked."""
        self._keep(count * NUMBER_COST, self.offset)
        size = SCALARS[value_type].size * count
        self._need(size)
        values = struct.unpack_from(f"<{count}{SCALAR_FORMATS[value_type]}", self._buffer, self._position)
        self._position += size
        return values

    def fields(self, layout: struct.Struct) -> tuple[int, ...]:
        """Several fixed-size values at once."""
        self._need(layout.size)
        values = layout.unpack_from(self._buffer, self._position)
        self._position += layout.size
        return values

    def string(self, limit: int, what: str) -> tuple[str, int]:
        """A length-prefixed text of at most `limit` bytes, counted against the memory budget; and its length in bytes.

        Decoded without loss, so that two different names never become one.
        """
        start = self.offset
        length = self.u64()
        if length > limit or length > self.remaining:
            self._check_length(length, start + 8, what)
            raise GgufError(
                GgufErrorCode.LIMIT_EXCEEDED, f"{what} has {length} bytes; the limit is {limit}", offset=start
            )
        self._need(length)
        raw = self._buffer[self._position : self._position + length]
        self._position += length
        text = raw.decode("utf-8", errors="surrogateescape")
        self._keep(sys.getsizeof(text), start)
        return text, length

    def _keep(self, cost: int, start: int) -> None:
        self._kept += cost
        if self._kept > self._limits.kept_total_bytes:
            raise GgufError(
                GgufErrorCode.LIMIT_EXCEEDED,
                f"names, texts and short arrays of the header exceed {self._limits.kept_total_bytes} bytes",
                offset=start,
            )

    def skip(self, length: int) -> None:
        """Pass `length` bytes without keeping them."""
        self._seek(self._position + length, length)

    def skip_strings(self, count: int) -> None:
        """Walk over `count` strings: their lengths must be read, their bytes need not be."""
        while count:
            self._need(8)
            count = self._walk(count)

    def _walk(self, count: int) -> int:
        """Walk inside the buffer; returns how many strings are left. This loop is the reader's speed."""
        buffer, position, unpack = self._buffer, self._position, U64.unpack_from
        left = repeat(None, count)
        length = 0
        try:
            for _ in left:
                length = unpack(buffer, position)[0]
                position += 8 + length
        except (struct.error, OverflowError):
            self._seek(position, length)  # the next length lies past the buffer
            return length_hint(left) + 1
        self._seek(position, length)
        return 0

    def _seek(self, position: int, length: int) -> None:
        """Move to a position of the buffer's coordinates, perhaps far past its end; the last step was `length`."""
        if position > len(self._buffer):
            self._check_length(length, self._base + position - length, "a value")
            while position > len(self._buffer):
                position -= len(self._buffer)
                self._position = len(self._buffer)
                self._fill(1)
        self._position = position

    def _check_length(self, length: int, start: int, what: str) -> None:
        if length > MAX_STRING_BYTES:
            raise GgufError(
                GgufErrorCode.CORRUPT, f"{what} claims {length} bytes, more than any file may", offset=start
            )
        end = start + length
        if end > self._source.size:
            raise GgufError(
                GgufErrorCode.TRUNCATED,
                f"{what} ends at byte {end}, but the file has {self._source.size}: it is incomplete or damaged",
                offset=start,
            )
        self.check_limit(end)

    def check_limit(self, end: int) -> None:
        """Refuse a header that reaches up to `end`."""
        if end > self._limits.header_bytes:
            raise GgufError(
                GgufErrorCode.LIMIT_EXCEEDED,
                f"the header is longer than {self._limits.header_bytes} bytes",
                offset=self.offset,
            )

    def _need(self, length: int) -> None:
        """Make `length` bytes available at the position."""
        if self._position + length > len(self._buffer):
            self._fill(length)

    def _fill(self, need: int) -> None:
        """Drop what was passed and read on until `need` bytes are buffered."""
        if self._clock() > self._deadline:
            raise GgufError(
                GgufErrorCode.LIMIT_EXCEEDED,
                "the headers could not be read within the time budget",
                offset=self.offset,
            )
        self.check_limit(self.offset + need)
        self._hash.update(memoryview(self._buffer)[: self._position])
        kept = self._buffer[self._position :]
        self._base += self._position
        self._position = 0
        more = self._source.read_at(self._base + len(kept), max(need - len(kept), CHUNK_BYTES))
        self._buffer = kept + more
        if len(self._buffer) < need:
            raise GgufError(
                GgufErrorCode.TRUNCATED,
                f"the file ends at byte {self._base + len(self._buffer)}, inside its header: "
                "the download or copy did not finish",
                offset=self.offset,
            )

    def finish(self, extra: Iterable[bytes]) -> bytes:
        """SHA-256 of everything up to the present position, then of `extra`; the window is done afterwards."""
        self._hash.update(memoryview(self._buffer)[: self._position])
        for data in extra:
            self._hash.update(data)
        return self._hash.digest()
