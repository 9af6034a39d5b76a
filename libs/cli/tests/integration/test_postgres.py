import asyncio
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
import pytest

from cortex_cli.errors import StackError
from cortex_cli.stack import postgres_binaries
from cortex_cli.stack.home import Home
from cortex_cli.stack.ports import assign
from cortex_cli.stack.postgres import EmbeddedPostgres, check_external
from cortex_cli.stack.records import ProcessRecords
from cortex_cli.stack.supervisor import supervisor

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]
PASSWORD = "correct horse/battery@staple"
INSTALLED = postgres_binaries.discover()


@pytest.fixture(params=INSTALLED, ids=lambda item: f"postgres-{item.major}")
def installation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> postgres_binaries.Binaries:
    monkeypatch.setattr(postgres_binaries, "discover", lambda: [request.param])
    return request.param


async def test_postgres_keeps_its_data_over_a_stop_and_a_kill(
    installation: postgres_binaries.Binaries, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    port = assign(["postgres"], {})["postgres"]
    server = EmbeddedPostgres(home, port=port, password=PASSWORD, environ=os.environ)
    async with supervisor(ProcessRecords(home.processes), lambda status: None) as watch:
        watch.start(await server.prepare())
        await watch.wait_ready("postgres", 30)
        await server.ensure_database()
        await server.ensure_database()
        await _execute(server.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        pid = watch.statuses()[0].pid
        assert pid is not None
        os.kill(pid, 9)
        await _until(lambda: watch.statuses()[0].restarts >= 1 and watch.statuses()[0].phase == "ready")
        assert await _value(server.url, "SELECT answer FROM kept") == 42
        family = psutil.Process(watch.statuses()[0].pid)
        if os.geteuid() == 0:
            assert family.uids().effective != 0
        if os.geteuid() == 0 and sys.platform == "linux":
            assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url.replace("correct", "wrong"))
    assert not family.is_running()
    server.close()

    again = EmbeddedPostgres(home, port=port, password=PASSWORD, environ=os.environ)
    async with supervisor(ProcessRecords(home.processes), lambda status: None) as watch:
        watch.start(await again.prepare())
        await watch.wait_ready("postgres", 30)
        assert await _value(again.url, "SELECT answer FROM kept") == 42
        await check_external(again.url)
    again.close()


async def test_data_of_another_major_version_is_a_clear_error(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    (home.postgres / "data").mkdir(parents=True)
    (home.postgres / "data" / "PG_VERSION").write_text("9\n")
    server = EmbeddedPostgres(home, port=1, password=PASSWORD, environ=os.environ)
    with pytest.raises(StackError, match="made by PostgreSQL 9, but only"):
        await server.prepare()


async def test_a_named_server_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(StackError, match="CORTEX_DATABASE_URL"):
        await check_external("postgresql://cortex:x@127.0.0.1:1/cortex")


@pytest.mark.skipif(os.geteuid() != 0, reason="changes to another account")
async def test_it_runs_for_an_ordinary_user_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path("/tmp") / f"cortex-ordinary-{os.getpid()}"
    folder.mkdir(mode=0o755)
    os.chown(folder, 65534, 65534)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            ORDINARY,
            str(folder / "home"),
            cwd="/",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        assert output.decode().strip() == "42"
        assert (folder / "home" / "postgres" / "data").stat().st_uid == 65534
    finally:
        shutil.rmtree(folder)


ORDINARY = """
import asyncio, os, sys
from pathlib import Path
import asyncpg
from cortex_cli.stack.home import Home
from cortex_cli.stack.ports import assign
from cortex_cli.stack.postgres import EmbeddedPostgres
from cortex_cli.stack.records import ProcessRecords
from cortex_cli.stack.supervisor import supervisor

import concurrent.futures.thread, pwd

async def main():
    # The interpreter itself may lie where an ordinary user cannot read: everything is imported by now.
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    home = Home(Path(sys.argv[1]))
    home.prepare()
    server = EmbeddedPostgres(home, port=assign(["postgres"], {})["postgres"], password="p" * 40, environ=os.environ)
    async with supervisor(ProcessRecords(home.processes), lambda status: None) as watch:
        watch.start(await server.prepare())
        await watch.wait_ready("postgres", 30)
        await server.ensure_database()
        connection = await asyncpg.connect(server.url)
        print(await connection.fetchval("SELECT 42"))
        await connection.close()

asyncio.run(main())
"""


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def _value(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def _until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)
