"""SHA-256 of whole files, for comparison with what a publisher states. Reads every byte: on request only."""

import hashlib
import os
from collections.abc import Callable

from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_kit.errors import CortexError

BLOCK_BYTES = 4 * 1024 * 1024


class ChecksumCancelled(CortexError):
    """The caller did not want it any more."""


def sha256_of_file(
    descriptor: int,
    *,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> str:
    """SHA-256 of an open regular file in hex. Blocks for as long as the disk needs; memory is one block.

    `progress(done_bytes, total_bytes)` is called after every block, in this thread, and at the end with both equal;
    `cancelled()` is asked before every block. Other threads run meanwhile.

    Raises:
        ChecksumCancelled: `cancelled()` was true.
        GgufError: `gguf_truncated`, the file changed its size meanwhile.
        OSError: the file cannot be read.
    """
    total = os.fstat(descriptor).st_size
    digest, block, done = hashlib.sha256(), bytearray(block_bytes), 0
    view = memoryview(block)
    while True:
        if cancelled is not None and cancelled():
            raise ChecksumCancelled(f"stopped after {done} of {total} bytes")
        count = os.preadv(descriptor, [block], done)
        if count == 0:
            break
        digest.update(view[:count])
        done += count
        if progress is not None:
            progress(min(done, total), total)
    if done != total:
        message = f"the file had {total} bytes and then {done}: try again when the copy is complete"
        raise GgufError(GgufErrorCode.TRUNCATED, message, offset=min(done, total))
    return digest.hexdigest()
