"""Keeps the processes of the stack running."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import cast

from cortex_cli.errors import CliError, StackError
from cortex_cli.stack import logs
from cortex_cli.stack.process import Notify, ProcessSpec, ProcessStatus, SupervisedProcess
from cortex_cli.stack.records import ProcessRecords

_CUT_LOGS_EVERY_S = 30.0


class Supervisor:
    """Owns one task per process. Made by `supervisor()`."""

    def __init__(self, records: ProcessRecords, group: asyncio.TaskGroup, notify: Notify) -> None:
        self._records = records
        self._group = group
        self._notify = notify
        self._processes: dict[str, SupervisedProcess] = {}
        self.hurry = asyncio.Event()

    def start(self, spec: ProcessSpec) -> None:
        """Start a process and keep it running; `wait_ready` tells whether it came up."""
        process = SupervisedProcess(spec, self._records, self._notify)
        self._processes[spec.name] = process
        self._group.create_task(process.run(), name=spec.name)

    async def wait_ready(self, name: str, timeout: float) -> float:
        """Wait until a process was ready once; returns the seconds it took.

        Raises:
            StackError: it was not ready in time, or cannot start.
        """
        begun = time.monotonic()
        process = self._processes[name]
        try:
            async with asyncio.timeout(timeout):
                await process.wait_ready()
        except TimeoutError as error:
            lines = "\n".join(f"    {line}" for line in logs.tail(process.log))
            raise StackError(
                f"{name} is not ready after {timeout:.0f} s.\n{lines}", fix=f"read {process.log}"
            ) from error
        return time.monotonic() - begun

    async def stop(self, names: Iterable[str]) -> None:
        """Stop these processes together; returns when all are gone."""
        await asyncio.gather(*(self._processes[name].stop(self.hurry) for name in names if name in self._processes))

    def statuses(self) -> list[ProcessStatus]:
        """A snapshot, in start order."""
        return [process.status for process in self._processes.values()]

    @property
    def names(self) -> tuple[str, ...]:
        """Every process ever started here."""
        return tuple(self._processes)

    async def keep_logs_bounded(self) -> None:
        """Cut logs that grew too large, for ever; a task of the supervisor."""
        while True:
            await asyncio.sleep(_CUT_LOGS_EVERY_S)
            for process in self._processes.values():
                await asyncio.to_thread(logs.cut, process.log)


@contextlib.asynccontextmanager
async def supervisor(records: ProcessRecords, notify: Notify) -> AsyncGenerator[Supervisor]:
    """A supervisor for the body; on the way out, however it ends, whatever still runs is stopped."""
    try:
        async with asyncio.TaskGroup() as group:
            watch = Supervisor(records, group, notify)
            keeper = group.create_task(watch.keep_logs_bounded(), name="logs")
            try:
                yield watch
            finally:
                keeper.cancel()
                await asyncio.shield(watch.stop(reversed(watch.names)))
    except BaseExceptionGroup as failures:
        raise unwrap(failures) from None


def unwrap(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to show of a task group's failure: our own error if there is one, a lone error, else the group itself."""
    leaves = list(_leaves(group))
    ours = [leaf for leaf in leaves if isinstance(leaf, CliError)]
    if ours:
        return ours[0]
    return leaves[0] if len(leaves) == 1 else group


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending.extend(cast("BaseExceptionGroup[BaseException]", error).exceptions)
        else:
            yield error
