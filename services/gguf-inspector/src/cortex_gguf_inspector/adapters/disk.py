"""Runs the blocking reader in threads of its own, so that a dead file system stops inspections and nothing else."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from cortex_contracts.rpc import InspectResultV1
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.inspect import inspect_model
from cortex_gguf_inspector.limits import Limits

GRACE_S = 1.0


class DiskInspector:
    """The port `Inspector` on a directory of this machine."""

    def __init__(self, root: Path | None, limits: Limits, *, workers: int) -> None:
        self._root = root
        self._limits = limits
        self._executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="gguf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def inspect(self, path: str) -> InspectResultV1:
        """Takes at most the time budget and a grace for a thread that waits for the disk. Raises GgufError."""
        if self._root is None:
            message = "no models directory is configured (CORTEX_MODELS_DIR)"
            raise GgufError(GgufErrorCode.MODELS_DIR_UNAVAILABLE, message)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.time_budget_s + GRACE_S):
                return await loop.run_in_executor(self._executor, inspect_model, self._root, path, self._limits)
        except TimeoutError as error:
            message = f"the models directory did not answer within {self._limits.time_budget_s + GRACE_S:g} s"
            raise GgufError(GgufErrorCode.TIMEOUT, message) from error

    def readiness(self) -> str | None:
        """Why no file can be inspected; None when the configuration is complete. Does not touch the disk."""
        return "CORTEX_MODELS_DIR is not set" if self._root is None else None
