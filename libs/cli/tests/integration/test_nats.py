import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import nats as nats_client
import pytest

from cortex_cli.stack import nats
from cortex_cli.stack.home import Home
from cortex_cli.stack.ports import assign
from cortex_cli.stack.records import ProcessRecords
from cortex_cli.stack.secrets import Secrets
from cortex_cli.stack.supervisor import supervisor

pytestmark = pytest.mark.integration


async def test_a_nats_server_starts_keeps_its_store_and_comes_back_when_killed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home with spaces")
    home.prepare()
    secrets = Secrets()
    port = assign(["nats"], {})["nats"]
    async with supervisor(ProcessRecords(home.processes), lambda status: None) as watch:
        watch.start(nats.prepare(home, port, secrets, os.environ))
        await watch.wait_ready("nats", 10)
        client = await nats_client.connect(nats.url(port, secrets))
        await client.jetstream().add_stream(name="S", subjects=["s.>"])
        await client.jetstream().publish("s.a", b"kept")
        await client.close()

        pid = watch.statuses()[0].pid
        assert pid is not None
        os.kill(pid, 9)
        await _until(lambda: watch.statuses()[0].restarts == 1 and watch.statuses()[0].phase == "ready")

        client = await nats_client.connect(nats.url(port, secrets))
        assert (await client.jetstream().stream_info("S")).state.messages == 1
        await client.close()
    assert ProcessRecords(home.processes).living() == []


async def test_the_operator_hears_events_but_can_say_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    secrets = Secrets()
    port = assign(["nats"], {})["nats"]
    refusals: list[str] = []

    async def on_error(error: Exception) -> None:
        refusals.append(str(error))

    async with supervisor(ProcessRecords(home.processes), lambda status: None) as watch:
        watch.start(nats.prepare(home, port, secrets, os.environ))
        await watch.wait_ready("nats", 10)
        operator = await nats_client.connect(nats.url(port, secrets, nats.OPERATOR), error_cb=on_error)
        writer = await nats_client.connect(nats.url(port, secrets))
        events = await operator.subscribe("container.>")
        await operator.flush()
        await writer.publish("container.started", b"{}")
        assert (await events.next_msg(timeout=5)).subject == "container.started"
        await operator.publish("container.started", b"forged")
        await operator.subscribe("_INBOX.>")
        await operator.subscribe("$KV.keys.>")
        await operator.flush()
        await _until(lambda: len(refusals) == 3)
        assert all("permissions violation" in text.lower() for text in refusals)
        await operator.close()
        await writer.close()


async def test_nobody_enters_without_a_password(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    port = assign(["nats"], {})["nats"]
    async with supervisor(ProcessRecords(home.processes), lambda status: None) as watch:
        watch.start(nats.prepare(home, port, Secrets(), os.environ))
        await watch.wait_ready("nats", 10)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        assert b"Authorization Violation" in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def _until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)
