"""The PostgreSQL server of the embedded stack.

As root on Linux the server runs under another account, and that account can usually not enter the home folder (mode 0700,
often below /root). Instead of opening folders to everybody, the server gets a descriptor of its own folder and knows it as
/proc/self/fd/<n>: the kernel checks permissions from there on only.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import asyncpg

from cortex_cli.errors import StackError
from cortex_cli.stack import accounts, logs, postgres_binaries
from cortex_cli.stack.files import PRIVATE_FILE, make_private_folder
from cortex_cli.stack.home import Home
from cortex_cli.stack.launch import Account, Identity, launch, run_to_end
from cortex_cli.stack.ports import LOOPBACK
from cortex_cli.stack.postgres_copy import reachable_copy
from cortex_cli.stack.probes import Probe
from cortex_cli.stack.process import ProcessSpec

USER = "cortex"
DATABASE = "cortex"
URL_VARIABLE = "CORTEX_DATABASE_URL"

_CONNECT_S = 5.0
_INITDB_S = 180.0
_LONGEST_SOCKET_PATH = 103  # the smallest limit of any system, without its final zero
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TZ", "TMPDIR")


class EmbeddedPostgres:
    """A server of our own on loopback, its data in the home folder; `close` after it has ended."""

    def __init__(self, home: Home, *, port: int, password: str, environ: Mapping[str, str]) -> None:
        self._holder = home.postgres
        self._log = home.log("postgres")
        self._port = port
        self._password = password
        self._env = {name: environ[name] for name in _KEPT_VARIABLES if name in environ} | {"LC_ALL": "C"}
        self._descriptor: int | None = None

    @property
    def url(self) -> str:
        """Address of our database, with credentials."""
        return self._url(DATABASE)

    async def prepare(self) -> ProcessSpec:
        """Choose a server, make the data folder when there is none, and say how to run it. Takes a second at first.

        Raises:
            StackError: no PostgreSQL here, none of the version of the data, or its data cannot be made.
        """
        account = accounts.for_postgres(self._holder / "data")
        self._own_holder(account)
        binaries = postgres_binaries.choose(
            await asyncio.to_thread(postgres_binaries.discover), data_major(self._holder / "data")
        )
        folder = await asyncio.to_thread(reachable_copy, binaries, account)
        view = self._view(account)
        if not (self._holder / "data" / "PG_VERSION").exists():
            await self._make_data(folder, view, account)
        return self._spec(folder, view / "data", account)

    async def ensure_database(self) -> None:
        """Create our database unless it exists.

        Raises:
            StackError: the server refuses.
        """
        try:
            connection = await asyncpg.connect(self._url("postgres"), timeout=_CONNECT_S, command_timeout=60.0)
            try:
                if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                    await connection.execute(f"CREATE DATABASE {DATABASE}")
            finally:
                await connection.close(timeout=_CONNECT_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StackError(f"The database cannot be made: {error}.", fix=f"read {self._log}") from error

    def close(self) -> None:
        """Release what the server inherited."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _url(self, database: str) -> str:
        return (
            f"postgresql://{USER}:{quote(self._password, safe='')}@{LOOPBACK}:{self._port}/{database}?sslmode=disable"
        )

    def _own_holder(self, account: Account | None) -> None:
        make_private_folder(self._holder)
        if account is not None:
            os.chown(self._holder, account.uid, account.gid)

    def _view(self, account: Account | None) -> Path:
        """The holder folder as the server sees it."""
        if account is None:
            return self._holder
        if sys.platform != "linux":
            if not accounts.may_enter(self._holder, account):
                raise StackError(
                    f"PostgreSQL does not run as root, and no other account can enter {self._holder}.",
                    fix="run `cortex up` as an ordinary user, or name a server with CORTEX_DATABASE_URL",
                )
            return self._holder
        self.close()
        self._descriptor = os.open(self._holder, os.O_RDONLY | os.O_DIRECTORY)
        return Path(f"/proc/self/fd/{self._descriptor}")

    async def _make_data(self, folder: Path, view: Path, account: Account | None) -> None:
        fresh = self._holder / "data.new"  # renamed when complete: an interrupted start leaves no half database
        await asyncio.to_thread(shutil.rmtree, fresh, ignore_errors=True)
        password_file = self._holder / "password"
        password_file.unlink(missing_ok=True)
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(self._password)
            if account is not None:
                os.chown(password_file, account.uid, account.gid)
            await self._run_initdb(folder / "initdb", view, account)
        finally:
            password_file.unlink()
        fresh.rename(self._holder / "data")

    async def _run_initdb(self, program: Path, view: Path, account: Account | None) -> None:
        options = ("--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", f"--username={USER}")
        argv = (str(program), *options, f"--pwfile={view / 'password'}", f"--pgdata={view / 'data.new'}")
        process = await launch(argv, env=self._env, log=self._log, identity=self._identity(account))
        code = await run_to_end(process, _INITDB_S)
        if code != 0:
            lines = "\n".join(f"    {line}" for line in logs.tail(self._log))
            raise StackError(f"The Postgres data folder cannot be made:\n{lines}", fix=f"read {self._log}")

    def _identity(self, account: Account | None) -> Identity:
        return Identity(account, () if self._descriptor is None else (self._descriptor,))

    def _spec(self, folder: Path, data: Path, account: Account | None) -> ProcessSpec:
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self._port),
            "unix_socket_directories": socket_folder(data, self._port),
            "logging_collector": "off",
            "max_connections": "100",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return ProcessSpec(
            name="postgres",
            argv=(str(folder / "postgres"), "-D", str(data), *options),
            env=self._env,
            log=self._log,
            ready=_ready(self._url("postgres")),
            stop_signals=((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0)),
            identity=self._identity(account),
        )


def socket_folder(data: Path, port: int) -> str:
    """Where the server puts its Unix socket: the data folder, or nowhere when that path is too long for one."""
    return str(data) if len(os.fsencode(data / f".s.PGSQL.{port}")) <= _LONGEST_SOCKET_PATH else ""


def data_major(data: Path) -> int | None:
    """Major version of the server that made a data folder; None when there is none."""
    try:
        text = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    return int(text.split(".")[0])


async def check_external(url: str) -> None:
    """Check the server a user named.

    Raises:
        StackError: it cannot be reached, or refuses us.
    """
    if not await _ready(url)():
        raise StackError(
            f"The database named by {URL_VARIABLE} does not accept connections.",
            fix="check the address, the database name, the user and the password",
        )


def _ready(url: str) -> Probe:
    async def probe() -> bool:
        try:
            connection = await asyncpg.connect(url, timeout=_CONNECT_S)
            await connection.close(timeout=_CONNECT_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    return probe
