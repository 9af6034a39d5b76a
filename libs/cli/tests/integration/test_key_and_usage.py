"""`cortex key` and `cortex usage` against a real registry on a real Postgres."""

import asyncio
import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import nats
import pytest
from pydantic import SecretStr

from cortex_cli.main import main
from cortex_contracts.events import UsageRecordedV1
from cortex_kit.bus import split_url
from cortex_kit.events import new_envelope
from cortex_testing.servers import NatsServer, free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
ROOT = "the-root-token-of-these-tests"
Cortex = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cortex(postgres_dsn: str, nats_server: NatsServer, secret_key: str, tmp_path: Path) -> Iterator[Cortex]:
    """The command, run in this process, as an administrator."""
    url = f"http://127.0.0.1:{free_port()}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CORTEX_")}
    settings = {
        "CORTEX_NATS_URL": nats_server.url,
        "CORTEX_SECRET_KEY": secret_key,
        "CORTEX_REGISTRY_DATABASE_URL": postgres_dsn,
        "CORTEX_REGISTRY_ADMIN_TOKEN": ROOT,
        "CORTEX_REGISTRY_PORT": url.rpartition(":")[2],
    }
    environ = {"CORTEX_HOME": str(tmp_path), "CORTEX_PROFILES": str(tmp_path / "profiles.json"), "NO_COLOR": "1"}
    environ |= {"CORTEX_REGISTRY_URL": url, "CORTEX_ADMIN_TOKEN": ROOT}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, kept | environ, clear=True),
            patch.object(sys, "argv", ["cortex", *arguments]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                code = main()
            except SystemExit as end:
                code = end.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    program = [sys.executable, "-m", "cortex_registry"]
    subprocess.run([*program, "migrate"], env=kept | settings, check=True, timeout=60, stderr=subprocess.DEVNULL)
    with subprocess.Popen(program, env=kept | settings, stderr=subprocess.DEVNULL) as registry:
        try:
            _until(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
            yield run
        finally:
            registry.terminate()


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx.TransportError):
            if done():
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def fine(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


async def _publish(url: str, records: list[UsageRecordedV1]) -> None:
    address, user, password = split_url(SecretStr(url))
    client = await nats.connect(address, user=user, password=password)
    for one in records:
        envelope = new_envelope(one, source="cortex/gateway/t", aggregate_id=one.request_id, now=datetime.now(UTC))
        await client.jetstream().publish("usage.recorded", envelope.model_dump_json().encode())
    await client.close()


def test_a_key_is_made_with_limits_changed_rotated_and_revoked(cortex: Cortex) -> None:
    limits = ("--rpm", "60", "--tpm", "9000", "--streams", "2", "--monthly-tokens", "5000000", "--priority", "batch")
    made = fine(
        cortex("key", "create", "ci", "--model", "m", "--scope", "chat", "--ip", "10.0.0.1/8", "--days", "3", *limits)
    )
    assert made.startswith("sk-cortex-")
    shown = json.loads(fine(cortex("key", "show", "ci", "--json")))
    assert (shown["scopes"], shown["models"], shown["ip_allowlist"]) == (["chat"], ["m"], ["10.0.0.0/8"])
    assert (shown["requests_per_minute"], shown["tokens_per_month"], shown["priority"]) == (60, 5_000_000, "batch")
    assert "rpm 60 tpm 9000 streams 2 monthly 5000000" in fine(cortex("key", "list"))
    assert "disabled" in fine(cortex("key", "update", "ci", "--disable", "--set", "models=[]"))
    assert json.loads(fine(cortex("key", "list", "--state", "disabled", "--json")))[0]["models"] == []
    fine(cortex("key", "update", "ci", "--enable", "--rpm", "5", "--name", "robot"))
    rotated = json.loads(fine(cortex("key", "rotate", "robot", "--overlap-hours", "0", "--json")))
    assert (rotated["requests_per_minute"], rotated["replaces"]["state"]) == (5, "expired")
    assert fine(cortex("key", "revoke", rotated["id"])) == "revoked robot\n"
    wrong = cortex("key", "create", "x", "--scope", "admin")
    assert wrong.returncode == 1
    assert "scopes" in wrong.stderr
    nobody = cortex("key", "mine")
    assert "[no_user]" in nobody.stderr
    assert "[key_not_found]" in cortex("key", "show", "nothing").stderr
    assert "[user_not_found]" in cortex("key", "create", "x", "--user", "nobody").stderr


def test_usage_is_summed_drawn_and_exported(cortex: Cortex, nats_server: NatsServer, tmp_path: Path) -> None:
    key = json.loads(fine(cortex("key", "create", "alice", "--json")))
    start = datetime.now(UTC) - timedelta(hours=3)

    def record(number: int, **changes: Any) -> UsageRecordedV1:
        values: dict[str, Any] = {
            "request_id": f"r{number}", "key_id": key["id"], "model": "small", "model_id": "id", "stream": False,
            "route": "/v1/chat/completions", "status": 200, "outcome": "completed", "prompt_tokens": 30,
            "completion_tokens": 20, "duration_ms": 1000, "started_at": start + timedelta(seconds=number),
        }  # fmt: skip
        return UsageRecordedV1(**(values | changes))

    records = [*(record(number) for number in range(10)), record(10, status=502, outcome="upstream_error")]
    asyncio.run(_publish(nats_server.url, records))
    _until(lambda: json.loads(fine(cortex("usage", "summary", "--json")))["totals"]["requests"] == 11)
    by_key = fine(cortex("usage", "summary", "--by", "key")).splitlines()
    assert by_key[1].split()[:7] == ["alice", "11", "1", "330", "0", "220", "550"]
    assert by_key[2].split()[0] == "all"
    assert fine(cortex("usage", "summary", "--status", "5xx", "--by", "status")).splitlines()[1].split()[:2] == [
        "502",
        "1",
    ]
    drawn = fine(cortex("usage", "series", "--of", "tokens", "--key", "alice"))
    assert "█" * 32 in drawn
    assert "550 tokens since" in drawn
    latency = fine(cortex("usage", "latency", "--by", "model")).splitlines()[1].split()
    assert latency[:2] == ["small", "10"]
    file = tmp_path / "usage.csv"
    fine(cortex("usage", "export", str(file)))
    assert [row["request_id"] for row in csv.DictReader(io.StringIO(file.read_text()))] == [
        f"r{number}" for number in range(10, -1, -1)
    ]
    assert "there already" in cortex("usage", "export", str(file)).stderr
    lines = tmp_path / "usage.jsonl"
    fine(cortex("usage", "export", str(lines), "--status", "502"))
    assert json.loads(lines.read_text())["outcome"] == "upstream_error"
    assert cortex("usage", "export", str(tmp_path / "none" / "x.csv")).returncode == 1
    assert not list(tmp_path.glob("*.part"))
    assert "[invalid_request]" in cortex("usage", "summary", "--by", "colour").stderr
    assert cortex("usage", "series", "--of", "money").returncode == 2
    used = json.loads(fine(cortex("key", "show", "alice", "--json")))["last_used_at"]
    assert used is not None
