"""The models directory as a library: blocking work in threads of its own, each with a deadline."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from cortex_contracts.library import LibraryV1, ScanRequestV1, VerifyRequestV1, VerifyResultV1
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.library.scan import Library, Snapshot
from cortex_gguf_inspector.library.tree import ScanBounds
from cortex_gguf_inspector.library.verify import verify_model
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.paths import parse_client_path

ResultT = TypeVar("ResultT")


class DiskLibrary:
    """The port `LibraryDisk` on a directory of this machine.

    Args:
        root: the models directory; None when none is configured.
        verify_timeout_s: longest verification.
    """

    def __init__(self, root: Path | None, limits: Limits, bounds: ScanBounds, *, verify_timeout_s: float) -> None:
        self._root = root
        self._limits = limits
        self._verify_timeout_s = verify_timeout_s
        self._library = None if root is None else Library(root, limits, bounds)
        self._scan_timeout_s = bounds.time_s + 2 * limits.time_budget_s + 1
        self._latest: Snapshot | None = None
        self._scanner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="library")
        self._verifier = ThreadPoolExecutor(max_workers=2, thread_name_prefix="verify")
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._scanner.shutdown(wait=False, cancel_futures=True)
        self._verifier.shutdown(wait=False, cancel_futures=True)

    async def scan(self) -> Snapshot:
        """Look at everything now, reading what changed. Raises GgufError."""
        library = self._library
        if library is None:
            raise _no_directory()
        self._latest = await _bounded(self._scanner, library.scan, self._scan_timeout_s)
        return self._latest

    async def page(self, request: ScanRequestV1) -> LibraryV1:
        """A page of the last scan, or of a new one. Raises GgufError."""
        below = parse_client_path(request.path)
        snapshot = self._latest
        if snapshot is None or request.refresh:
            snapshot = await self.scan()
        return snapshot.page(below, request.offset, request.limit)

    async def verify(self, request: VerifyRequestV1) -> VerifyResultV1:
        """Reads whole files, for at most the configured time. Raises GgufError."""
        root = self._root
        if root is None:
            raise _no_directory()
        given_up = threading.Event()

        def stop() -> bool:
            return given_up.is_set() or self._closed.is_set()

        def work() -> VerifyResultV1:
            return verify_model(root, request, self._limits, stop=stop)

        try:
            return await _bounded(self._verifier, work, self._verify_timeout_s)
        finally:
            given_up.set()


async def _bounded(executor: Executor, work: Callable[[], ResultT], timeout_s: float) -> ResultT:
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.get_running_loop().run_in_executor(executor, work)
    except TimeoutError as error:
        message = f"the models directory did not answer within {timeout_s:g} s"
        raise GgufError(GgufErrorCode.TIMEOUT, message) from error


def _no_directory() -> GgufError:
    return GgufError(GgufErrorCode.MODELS_DIR_UNAVAILABLE, "no models directory is configured (CORTEX_MODELS_DIR)")
