"""schemathesis against real processes: what the API answers is what its description says, whatever it is asked.

The bounded run is part of `make test`. All phases, with more examples: `CORTEX_FUZZ_EXAMPLES=50 make test-integration`, or
tests/bench/admin_api_fuzz.py for minutes.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cortex_testing.servers import NatsServer
from cortex_testing.services import ServiceProcess

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

TOKEN = "an-admin-token-for-tests"
FOLDER = Path(__file__).parents[1] / "schemathesis"
EXAMPLES = os.environ.get("CORTEX_FUZZ_EXAMPLES")
ENDLESS = "/(stream|follow)$"
"""Answers that end when the client leaves."""


@pytest.fixture
def registry_url(nats_server: NatsServer, postgres_dsn: str, secret_key: str, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "models").mkdir()
    shared = {
        "CORTEX_NATS_URL": nats_server.url,
        "CORTEX_SECRET_KEY": secret_key,
        "CORTEX_MODELS_DIR": str(tmp_path / "models"),
    }
    registry = ServiceProcess("registry", tmp_path, shared | {"DATABASE_URL": postgres_dsn, "ADMIN_TOKEN": TOKEN})
    helpers = [ServiceProcess(name, tmp_path, shared) for name in ("gguf-inspector", "health")]
    registry.run("migrate")
    try:
        for process in (registry, *helpers):
            process.start()
        for process in (registry, *helpers):
            process.wait_ready()
        yield registry.url
        assert "request_crashed" not in registry.log.read_text()
    finally:
        for process in (registry, *helpers):
            process.stop()


def run(url: str, folder: Path, *options: str) -> None:
    """Run schemathesis in a folder, where it leaves its caches; its report is the message of a failure."""
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(FOLDER / "schemathesis.toml")),
        *("run", f"{url}/admin/openapi.json", "--url", url, "--exclude-path-regex", ENDLESS),
        *("--checks", "all", "--seed", "1", "--no-shrink", "--warnings", "off", "--no-color", *options),
    ]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(FOLDER)}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2_000:]


def test_an_administrator_finds_no_server_error_and_no_answer_that_is_not_described(
    registry_url: str, tmp_path: Path
) -> None:
    phases = "examples,fuzzing,stateful" if EXAMPLES is None else "examples,coverage,fuzzing,stateful"
    amount = ("--max-examples", EXAMPLES or "2", "--phases", phases)
    run(registry_url, tmp_path, "--header", f"Authorization: Bearer {TOKEN}", *amount)


def test_nobody_finds_anything_but_a_refusal(registry_url: str) -> None:
    """Every operation but the public ones answers 401 in the described shape, with no sign-in and with a wrong one."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    document = httpx.get(f"{registry_url}/admin/openapi.json", headers=headers, trust_env=False).json()
    asked = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if not path.startswith("/admin") or operation["security"] == []:
                continue
            for wrong in ({}, {"Authorization": "Bearer nonsense"}, {"Cookie": "cortex_session=nonsense"}):
                address = f"{registry_url}{path}".replace("{", "").replace("}", "")
                answer = httpx.request(method, address, headers=wrong, trust_env=False)
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), (method, path, wrong)
                asked += 1
    assert asked > 100
