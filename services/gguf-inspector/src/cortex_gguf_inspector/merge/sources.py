"""The parts of a running merge, opened one at a time and checked to be those of the plan."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import PurePosixPath
from types import TracebackType
from typing import Self

from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.merge.plan import Source
from cortex_gguf_inspector.paths import ModelsRoot


class OpenSources:
    """Gives descriptors; holds one open, so that a set of a thousand parts needs no thousand descriptors."""

    def __init__(self, models: ModelsRoot, sources: Sequence[Source]) -> None:
        self._models = models
        self._sources = sources
        self._open = ExitStack()
        self._current: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def descriptor(self, number: int) -> int:
        """A descriptor of one source, valid until another one is asked for.

        Raises:
            GgufError: the file is not the one that was planned with.
        """
        if self._current is not None and self._current[0] == number:
            return self._current[1]
        self._open.close()
        self._current = None
        planned = self._sources[number]
        descriptor = self._open.enter_context(self._models.open_file(PurePosixPath(planned.path)))
        found = os.fstat(descriptor)
        if (found.st_size, found.st_mtime_ns, found.st_ino) != (planned.size, planned.mtime_ns, planned.inode):
            message = f"{PurePosixPath(planned.path).name} changed while it was merged: try again when it is complete"
            raise GgufError(GgufErrorCode.TRUNCATED, message)
        self._current = (number, descriptor)
        return descriptor
