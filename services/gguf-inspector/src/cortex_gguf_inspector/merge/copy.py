"""Moves bytes between files: in the kernel where it can, through a buffer where it cannot."""

import contextlib
import errno
import os
from collections.abc import Callable

CHUNK_BYTES = 32 * 1024 * 1024
BUFFER_BYTES = 4 * 1024 * 1024
_NOT_IN_KERNEL = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY})


class SourceEnded(OSError):
    """A source gave fewer bytes than it had when the plan was made."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the source ended before its announced size")


class Copier:
    """Copies ranges; remembers when the kernel refuses to."""

    def __init__(self, *, in_kernel: bool = True) -> None:
        self._in_kernel = in_kernel and hasattr(os, "copy_file_range")

    def copy(self, source: int, target: int, offset: int, to: int, length: int) -> int:
        """Copy up to `length` bytes (at most a chunk); returns how many. Raises OSError."""
        length = min(length, CHUNK_BYTES)
        if self._in_kernel:
            try:
                done = os.copy_file_range(source, target, length, offset, to)
            except OSError as error:
                if error.errno not in _NOT_IN_KERNEL:
                    raise
                self._in_kernel = False
            else:
                if done:
                    return done
                self._in_kernel = False  # some file systems answer 0 instead of an error; a read tells the end for sure
        return _through_buffer(source, target, offset, to, min(length, BUFFER_BYTES))


def _through_buffer(source: int, target: int, offset: int, to: int, length: int) -> int:
    data = os.pread(source, length, offset)
    if not data:
        raise SourceEnded
    write_all(target, data, to)
    return len(data)


def write_all(target: int, data: bytes, to: int) -> None:
    """Write everything at a position. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(target, view, to)
        view, to = view[written:], to + written


def read_exactly(source: int, length: int, offset: int) -> bytes:
    """Exactly `length` bytes.

    Raises:
        SourceEnded: the file is shorter.
        OSError: it cannot be read.
    """
    data = os.pread(source, length, offset)
    while len(data) < length:
        more = os.pread(source, length - len(data), offset + len(data))
        if not more:
            raise SourceEnded
        data += more
    return data


def same_range(one: int, other: int, places: tuple[int, int], length: int, seen: Callable[[bytes], None]) -> bool:
    """True when `length` bytes at two places of two files are equal; `seen` gets the bytes of the second.

    Raises:
        SourceEnded: one of them is shorter.
        OSError: they cannot be read.
    """
    done = 0
    while done < length:
        step = min(BUFFER_BYTES, length - done)
        ours = read_exactly(other, step, places[1] + done)
        if read_exactly(one, step, places[0] + done) != ours:
            return False
        seen(ours)
        done += step
    return True


def forget_cache(descriptor: int) -> None:
    """Ask for the next read to come from the disk, where that can be asked for."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
