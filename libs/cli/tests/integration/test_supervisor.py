import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cortex_cli.errors import CliError, StackError
from cortex_cli.stack.home import Home
from cortex_cli.stack.launch import AS_OURSELVES, launch
from cortex_cli.stack.leftovers import end_leftovers
from cortex_cli.stack.ports import assign
from cortex_cli.stack.probes import Probe, http_ready
from cortex_cli.stack.process import Phase, ProcessSpec, ProcessStatus
from cortex_cli.stack.records import ProcessRecords
from cortex_cli.stack.supervisor import Supervisor, supervisor

pytestmark = pytest.mark.integration

FAKE_SERVICE = """
import http.server, signal, sys, time
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *args: print("no", flush=True))
print("begins", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.prepare()
    return home


def _fake(home: Home, *arguments: str, code: str = FAKE_SERVICE, patience: float = 5.0) -> ProcessSpec:
    port = assign(["fake"], {})["fake"]
    return ProcessSpec(
        name="fake",
        argv=(sys.executable, "-c", code, str(port), *arguments),
        env=os.environ,
        log=home.log("fake"),
        ready=http_ready(port),
        stop_signals=((signal.SIGTERM, patience),),
    )


def _pid(watch: Supervisor) -> int:
    pid = watch.statuses()[0].pid
    assert pid is not None
    return pid


async def test_a_killed_process_comes_back(home: Home) -> None:
    told: list[ProcessStatus] = []
    async with supervisor(ProcessRecords(home.processes), told.append) as watch:
        watch.start(_fake(home))
        await watch.wait_ready("fake", 10)
        first = _pid(watch)
        for restarts in (1, 2):
            os.kill(_pid(watch), signal.SIGKILL)
            await _until(lambda expected=restarts: _is(watch, Phase.READY, expected))
        assert _pid(watch) != first
        assert [(status.phase, status.restarts) for status in told] == [("restarting", 1), ("restarting", 2)]
        assert "signal 9" in told[0].reason
        (record,) = ProcessRecords(home.processes).living()
        assert record.pid == _pid(watch)
    assert ProcessRecords(home.processes).living() == []
    assert home.log("fake").read_text().count("begins") == 3


async def test_one_that_never_starts_is_given_up_with_the_end_of_its_log(home: Home) -> None:
    spec = _fake(home, code="import sys; print('the disk is on fire'); sys.exit(7)")
    with pytest.raises(StackError, match=r"(?s)fake does not start: it ended with code 7.*the disk is on fire"):
        await _run_until_ready(home, spec, 20)


async def test_a_program_that_is_not_there_is_given_up(home: Home) -> None:
    spec = ProcessSpec("ghost", ("/nowhere/program",), {}, home.log("ghost"), http_ready(1))
    with pytest.raises(StackError, match="could not be started"):
        await _run_until_ready(home, spec, 20)


async def test_one_that_is_not_ready_in_time_is_named(home: Home) -> None:
    spec = _fake(home, code="import time; print('still thinking', flush=True); time.sleep(60)")
    with pytest.raises(StackError, match=r"(?s)fake is not ready after 1 s.*still thinking"):
        await _run_until_ready(home, spec, 1)
    assert ProcessRecords(home.processes).living() == []


async def test_a_stubborn_process_is_killed_in_the_end(home: Home) -> None:
    async with supervisor(ProcessRecords(home.processes), lambda status: None) as watch:
        watch.start(_fake(home, "stubborn", patience=0.5))
        await watch.wait_ready("fake", 10)
        pid = _pid(watch)
        await watch.stop(["fake"])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_hurry_cuts_the_patience_short(home: Home) -> None:
    async with supervisor(ProcessRecords(home.processes), lambda status: None) as watch:
        watch.start(_fake(home, "stubborn", patience=25.0))
        await watch.wait_ready("fake", 10)
        begun = time.monotonic()
        stop = asyncio.ensure_future(watch.stop(["fake"]))
        await asyncio.sleep(0.3)
        assert not stop.done()
        watch.hurry.set()
        await stop
    assert time.monotonic() - begun < 5


async def test_the_failure_of_the_body_stops_everything_and_is_told_as_it_is(home: Home) -> None:
    with pytest.raises(CliError, match="something else"):
        await _run_until_ready(home, _fake(home), 10, then=CliError("something else"))
    assert ProcessRecords(home.processes).living() == []


async def test_leftovers_of_a_killed_run_are_ended(home: Home) -> None:
    records = ProcessRecords(home.processes)
    spec = _fake(home)
    process = await launch(spec.argv, env=spec.env, log=spec.log, identity=AS_OURSELVES)
    records.add("fake", process.pid)
    home.ready.write_text("{}")
    await _until_async(spec.ready)
    assert await end_leftovers(home) == ["fake"]
    assert await process.wait() == -signal.SIGTERM
    assert list(home.processes.iterdir()) == []
    assert not home.ready.exists()
    assert await end_leftovers(home) == []


async def _run_until_ready(home: Home, spec: ProcessSpec, timeout: float, then: CliError | None = None) -> None:
    async with supervisor(ProcessRecords(home.processes), lambda status: None) as watch:
        watch.start(spec)
        await watch.wait_ready(spec.name, timeout)
        if then is not None:
            raise then


def _is(watch: Supervisor, phase: Phase, restarts: int) -> bool:
    return (watch.statuses()[0].phase, watch.statuses()[0].restarts) == (phase, restarts)


async def _until(condition: Callable[[], bool], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def _until_async(probe: Probe, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not await probe():
            await asyncio.sleep(0.02)
