"""Signing in with the command, against a real registry on a real Postgres."""

import asyncio
import contextlib
import io
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest

from cortex_cli.main import main
from cortex_testing.servers import NatsServer, free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ROOT = "the-root-token-of-these-tests"
GOOD = "correct zebra staples 41"


@dataclass
class Cortex:
    """A registry that runs, and the environment of somebody who has not signed in."""

    url: str
    environ: dict[str, str]
    profiles: Path

    def __call__(self, *arguments: str, text: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the command inside this process: a new one would spend its time importing."""
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.environ | environ, clear=True),
            patch.object(sys, "argv", ["cortex", *arguments]),
            patch.object(sys, "stdin", io.StringIO(text)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                code = main()
            except SystemExit as end:
                code = end.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def root(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it with the admin token of the settings."""
        return self(*arguments, CORTEX_REGISTRY_URL=self.url, CORTEX_ADMIN_TOKEN=ROOT)


@pytest.fixture
def cortex(postgres_dsn: str, nats_server: NatsServer, secret_key: str, tmp_path: Path) -> Generator[Cortex]:
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CORTEX_")}
    settings = {
        "CORTEX_NATS_URL": nats_server.url,
        "CORTEX_SECRET_KEY": secret_key,
        "CORTEX_REGISTRY_DATABASE_URL": postgres_dsn,
        "CORTEX_REGISTRY_ADMIN_TOKEN": ROOT,
        "CORTEX_REGISTRY_PORT": str(port),
        "CORTEX_REGISTRY_PASSWORD_MEMORY_KIB": "64",
        "CORTEX_REGISTRY_PASSWORD_PARALLELISM": "1",
    }
    program = [sys.executable, "-m", "cortex_registry"]
    subprocess.run([*program, "migrate"], env=kept | settings, check=True, timeout=60, stderr=subprocess.DEVNULL)
    with subprocess.Popen(program, env=kept | settings, stderr=subprocess.DEVNULL) as registry:
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_ready(url)
            profiles = tmp_path / "config" / "profiles.json"
            environ = kept | {"CORTEX_HOME": str(tmp_path), "CORTEX_PROFILES": str(profiles), "NO_COLOR": "1"}
            yield Cortex(url, environ, profiles)
        finally:
            registry.terminate()


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_somebody_signs_in_works_and_signs_out(cortex: Cortex) -> None:
    assert cortex.root("org", "create", "Research").returncode == 0
    made = cortex.root("user", "create", "alice", "--role", "admin", "--org", "research", "--json")
    assert made.returncode == 0, made.stderr
    one_time = json.loads(made.stdout)["one_time_password"]

    refused = cortex("model", "list")
    assert (refused.returncode, refused.stderr) == (3, "cortex: Cortex does not run here: start it with `cortex up`.\n")
    wrong = cortex("login", "--url", cortex.url, "--user", "alice", "--password-stdin", text="wrong\n")
    assert (wrong.returncode, "[invalid_credentials]" in wrong.stderr) == (1, True)
    assert not cortex.profiles.exists()
    unchanged = cortex("login", "--url", cortex.url, "--user", "alice", "--password-stdin", text=f"{one_time}\n")
    assert "[password_change_required]" in unchanged.stderr

    login = ("login", "--url", cortex.url, "--user", "alice", "--profile", "work", "--password-stdin")
    done = cortex(*login, text=f"{one_time}\n{GOOD}\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"signed in to {cortex.url} as alice; profile work\n"
    assert stat.S_IMODE(cortex.profiles.stat().st_mode) == 0o600
    token = json.loads(cortex.profiles.read_text())["profiles"]["work"]["token"]
    assert token.startswith("cortex-pat-")
    assert GOOD not in cortex.profiles.read_text()

    assert json.loads(cortex("whoami", "--json").stdout)["username"] == "alice"
    assert cortex("whoami").stdout == f"alice (admin) at {cortex.url}\nprofile: work\n"
    assert cortex("key", "create", "k").returncode == 0
    assert "Research" in cortex("user", "list").stdout
    assert "*" in cortex("profile", "list").stdout

    assert cortex(*login, text=f"{GOOD}\n").returncode == 0, "signing in again replaces the token"
    old = httpx.get(f"{cortex.url}/admin/auth/me", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    assert old.status_code == 401

    out = cortex("logout")
    assert (out.returncode, out.stdout) == (0, "signed out; profile work removed\n")
    assert json.loads(cortex.profiles.read_text())["profiles"] == {}
    assert cortex("whoami").returncode == 3


def test_profiles_are_chosen_by_name_and_environment(cortex: Cortex) -> None:
    for name, role in (("alice", "admin"), ("victor", "viewer")):
        one_time = json.loads(cortex.root("user", "create", name, "--role", role, "--json").stdout)["one_time_password"]
        done = cortex(
            "login", "--url", cortex.url, "--user", name, "--profile", name, "--password-stdin",
            text=f"{one_time}\n{GOOD}\n",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "victor" in cortex("whoami").stdout, "the last sign-in is the current profile"
    assert "alice" in cortex("whoami", "--profile", "alice").stdout
    assert "alice" in cortex("whoami", CORTEX_PROFILE="alice").stdout
    environ = {"CORTEX_REGISTRY_URL": cortex.url, "CORTEX_ADMIN_TOKEN": ROOT}
    assert "settings" in cortex("whoami", **environ).stdout, "the environment before the current profile"
    assert "alice" in cortex("whoami", "--profile", "alice", **environ).stdout, "a named profile before the environment"
    assert cortex("profile", "use", "alice").returncode == 0
    assert "alice" in cortex("whoami").stdout
    assert cortex("whoami", "--profile", "local").returncode == 3
    missing = cortex("whoami", "--profile", "nothing")
    assert (missing.returncode, "[profile_not_found]" in missing.stderr) == (2, True)

    refused = cortex("user", "create", "mallory", "--profile", "victor")
    assert (refused.returncode, "[forbidden]" in refused.stderr) == (1, True)
    made = cortex("token", "create", "backup", "--role", "viewer", "--password-stdin", text=f"{GOOD}\n")
    assert made.stdout.startswith("cortex-pat-"), made.stderr
    mine = httpx.get(
        f"{cortex.url}/admin/auth/me", headers={"Authorization": f"Bearer {made.stdout.strip()}"}, trust_env=False
    )
    assert (mine.json()["role"], mine.json()["username"]) == ("viewer", "alice")
    assert cortex("token", "revoke", "backup").returncode == 0

    assert "[own_account]" in cortex("user", "update", "alice", "--disable").stderr
    assert cortex("user", "update", "victor", "--disable").returncode == 0
    assert cortex("whoami", "--profile", "victor").returncode == 1
    assert cortex("user", "delete", "victor").returncode == 0
    assert cortex("profile", "remove", "victor").returncode == 0


def test_every_command_has_the_option_and_completion_works(cortex: Cortex) -> None:
    for arguments in (("model", "list"), ("status",), ("key", "create"), ("token", "list"), ("gguf", "scan")):
        page = cortex(*arguments, "--help", COLUMNS="200", TERMINAL_WIDTH="200").stdout
        assert "--profile" in page, arguments
    done = cortex(_CORTEX_COMPLETE="complete_bash", COMP_WORDS="cortex pro", COMP_CWORD="1")
    assert "profile" in done.stdout.split()


async def test_the_first_administrator_is_made_once(postgres_dsn: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CORTEX_")}
    environ = kept | {"CORTEX_REGISTRY_DATABASE_URL": postgres_dsn}

    async def run(*arguments: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cortex_registry", *arguments,
            env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    assert (await run("migrate"))[0] == 0
    results = await asyncio.gather(*(run("bootstrap-owner", "--username", f"owner{n}") for n in range(2)))
    assert sorted(code for code, _, _ in results) == [0, 1], results
    winner = next(result for result in results if result[0] == 0)
    loser = next(result for result in results if result[0] == 1)
    lines = dict(line.split(": ", 1) for line in winner[1].splitlines())
    assert lines["user name"].startswith("owner")
    assert len(lines["one-time password"]) == 23
    assert lines["one-time password"] not in winner[2]
    assert "[owner_exists]" in loser[2]
    assert loser[1] == ""
