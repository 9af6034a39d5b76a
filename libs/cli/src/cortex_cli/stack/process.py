"""One supervised process: started, watched, started again when it dies, stopped in good order."""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cortex_cli.errors import StackError
from cortex_cli.stack import backoff, logs
from cortex_cli.stack.launch import AS_OURSELVES, Identity, launch
from cortex_cli.stack.probes import Probe
from cortex_cli.stack.records import ProcessRecords

_PROBE_EVERY_S = 0.1
_PROBE_CALM_S = 2.0
_PROBE_ENDS_S = 2.0
_KILL_PATIENCE_S = 5.0
_HURRIED_S = 0.5


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to run and how to tell that it is ready.

    Args:
        stop_signals: (signal, seconds to wait), gentlest first; SIGKILL follows by itself.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    log: Path
    ready: Probe
    stop_signals: tuple[tuple[int, float], ...] = ((signal.SIGTERM, 15.0),)
    identity: Identity = AS_OURSELVES


class Phase(StrEnum):
    """What the supervisor knows of a process."""

    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A snapshot for the status view."""

    name: str
    phase: Phase
    pid: int | None
    restarts: int
    reason: str


Notify = Callable[[ProcessStatus], None]


class SupervisedProcess:
    """Runs one spec until stopped; `run` is a task of the supervisor.

    Args:
        notify: called after each death that was not asked for.
    """

    def __init__(self, spec: ProcessSpec, records: ProcessRecords, notify: Notify) -> None:
        self._spec = spec
        self._records = records
        self._notify = notify
        self._phase = Phase.STARTING
        self._process: asyncio.subprocess.Process | None = None
        self._restarts = 0
        self._reason = ""
        self._stop = asyncio.Event()
        self._ready_once = asyncio.Event()
        self._ended = asyncio.Event()
        self._failure: StackError | None = None

    @property
    def status(self) -> ProcessStatus:
        """What is known now."""
        pid = self._process.pid if self._process is not None else None
        return ProcessStatus(self._spec.name, self._phase, pid, self._restarts, self._reason)

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self._spec.log

    async def wait_ready(self) -> None:
        """Wait until it was ready once.

        Raises:
            StackError: it cannot be started, keeps dying before it was ever ready, or was stopped.
        """
        await _first_of(self._ready_once, self._ended)
        if self._failure is not None:
            raise self._failure
        if not self._ready_once.is_set():
            raise StackError(f"{self._spec.name} was stopped before it was ready.")

    async def run(self) -> None:
        """Keep it running until `stop`; ends by itself only when it never becomes ready (see `wait_ready`)."""
        streak = 0
        try:
            while not self._stop.is_set() and self._failure is None:
                started = time.monotonic()
                how = await self._run_once()
                if self._stop.is_set():
                    break
                decision = backoff.decide(
                    streak=streak,
                    uptime_s=time.monotonic() - started,
                    how=how,
                    was_ready=self._ready_once.is_set(),
                )
                streak = decision.streak
                self._on_death(decision)
                await _wait_at_most(self._stop, decision.delay_s)
        finally:
            self._phase = Phase.STOPPED if self._failure is None else Phase.FAILED
            self._ended.set()

    async def stop(self, hurry: asyncio.Event) -> None:
        """Ask it to end, ever less gently; returns when it is gone. `hurry` cuts the patience short."""
        self._stop.set()
        for number, patience_s in (*self._spec.stop_signals, (signal.SIGKILL, _KILL_PATIENCE_S)):
            self._send(number)
            hurried = hurry.is_set() and number != signal.SIGKILL
            if await self._ends_within(_HURRIED_S if hurried else patience_s, hurry):
                return

    def _on_death(self, decision: backoff.Restart) -> None:
        self._restarts += 1
        self._reason = decision.reason
        self._phase = Phase.RESTARTING
        if decision.give_up:
            lines = "\n".join(f"    {line}" for line in logs.tail(self._spec.log))
            self._failure = StackError(
                f"{self._spec.name} does not start: it {decision.reason}, {decision.streak} times in a row.\n{lines}",
                fix=f"read {self._spec.log}",
            )
            self._stop.set()
        self._notify(self.status)

    async def _run_once(self) -> str:
        """One life of the process; returns how it ended."""
        logs.rotate(self._spec.log)
        try:
            process = await launch(
                self._spec.argv, env=self._spec.env, log=self._spec.log, identity=self._spec.identity
            )
        except OSError as error:
            return f"could not be started ({error})"
        self._process = process
        self._records.add(self._spec.name, process.pid)
        self._phase = Phase.STARTING
        if self._stop.is_set():  # asked to stop while it was being started
            self._send(signal.SIGTERM)
        ended = asyncio.Event()
        watcher = asyncio.create_task(self._watch_readiness(ended), name=f"{self._spec.name} readiness")
        try:
            return backoff.describe_exit(await process.wait())
        finally:
            self._send(signal.SIGKILL)  # only when this task is cancelled: the process has ended otherwise
            ended.set()
            await asyncio.wait([watcher], timeout=_PROBE_ENDS_S)  # a connection cut in the middle could leak
            watcher.cancel()
            self._process = None
            self._records.remove(self._spec.name)

    async def _watch_readiness(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            ready = await self._spec.ready()
            if ended.is_set():
                return
            if ready:
                self._phase = Phase.READY
                self._ready_once.set()
            elif self._phase is Phase.READY:
                self._phase = Phase.NOT_READY
            await _wait_at_most(ended, _PROBE_CALM_S if ready else _PROBE_EVERY_S)

    def _send(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            try:
                self._process.send_signal(number)
            except ProcessLookupError:
                return

    async def _ends_within(self, seconds: float, hurry: asyncio.Event) -> bool:
        events = (self._ended,) if hurry.is_set() else (self._ended, hurry)
        try:
            async with asyncio.timeout(seconds):
                await _first_of(*events)
        except TimeoutError:
            pass
        return self._ended.is_set()


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
