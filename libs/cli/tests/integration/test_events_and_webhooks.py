"""`cortex events`, `webhook`, `audit` and `model why` against a real registry."""

import base64
import contextlib
import hashlib
import hmac
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from cortex_cli.main import main
from cortex_testing.servers import NatsServer, free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
ROOT = "the-root-token-of-these-tests"


class Stack:
    """A registry, and the command as its administrator."""

    def __init__(self, kept: dict[str, str], settings: dict[str, str], environ: dict[str, str]) -> None:
        self.url = environ["CORTEX_REGISTRY_URL"]
        self.environ = kept | environ
        self._program = [sys.executable, "-m", "cortex_registry"]
        self._registry_environ = kept | settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._program, env=self._registry_environ, stderr=subprocess.DEVNULL)
        until(lambda: httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            assert self._process.wait(timeout=30) == 0
            self._process = None

    def migrate(self) -> None:
        command = [*self._program, "migrate"]
        subprocess.run(command, env=self._registry_environ, check=True, timeout=60, stderr=subprocess.DEVNULL)

    def cortex(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.environ | more, clear=True),
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


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx.TransportError):
            if done():
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def stack(postgres_dsn: str, nats_server: NatsServer, secret_key: str, tmp_path: Path) -> Iterator[Stack]:
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
    running = Stack(kept, settings, environ)
    running.migrate()
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    got: list[tuple[dict[str, str], bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got
    server.shutdown()
    thread.join()
    server.server_close()


def fine(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_events_of_the_past_are_listed_and_those_to_come_followed_over_a_restart(stack: Stack, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        fine(stack.cortex("key", "create", name))
    until(lambda: len(lines(fine(stack.cortex("events", "key.*", "--no-follow", "--json")))) == 3)
    past = lines(fine(stack.cortex("events", "key.>", "--no-follow", "--since", "1h", "--json")))
    assert [event["data"]["name"] for event in past] == ["a", "b", "c"]
    assert [int(event["sequence"]) for event in past] == sorted(int(event["sequence"]) for event in past)
    last = lines(fine(stack.cortex("events", "key.created", "--last", "1", "-n", "1", "--json")))
    assert [event["data"]["name"] for event in last] == ["c"]
    behind = lines(fine(stack.cortex("events", "--after", past[0]["sequence"], "-n", "2", "--json")))
    assert [event["type"] for event in behind] == ["key.created.v1"] * 2
    assert "key.created" in fine(stack.cortex("events", "--no-follow", "--key", past[0]["data"]["key_id"]))

    output = tmp_path / "followed"
    # A shell that puts the tests into the background has SIGINT ignored, and children inherit that.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heeding}; from cortex_cli.main import main; raise SystemExit(main())"]
    arguments = ["events", "key.created", "--json", "--after", past[-1]["sequence"]]
    with output.open("wb") as out, subprocess.Popen([*command, *arguments], env=stack.environ, stdout=out) as following:
        fine(stack.cortex("key", "create", "d"))
        until(lambda: len(lines(output.read_text())) == 1)
        stack.stop()
        stack.start()
        fine(stack.cortex("key", "create", "e"))
        until(lambda: len(lines(output.read_text())) == 2)
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=20) == 0
    assert [event["data"]["name"] for event in lines(output.read_text())] == ["d", "e"]

    for arguments, code, words in (
        (["a b"], 1, "no event type"),
        (["--model", "nope", "--no-follow"], 1, "[model_not_found]"),
        (["--since", "soon"], 2, "--since soon"),
        (["--after", "99999999"], 1, "[unknown_cursor]"),
    ):
        refused = stack.cortex("events", *arguments)
        assert (refused.returncode, words in refused.stderr) == (code, True), refused.stderr


def test_a_webhook_is_made_tried_watched_rotated_and_deleted(
    stack: Stack, receiver: tuple[str, list[tuple[dict[str, str], bytes]]], tmp_path: Path
) -> None:
    url, got = receiver
    secret = fine(stack.cortex("webhook", "create", "pager", url, "-e", "key.*")).strip()
    assert secret.startswith("whsec_")
    assert "delivered: HTTP 204" in fine(stack.cortex("webhook", "test", "pager"))
    fine(stack.cortex("key", "create", "a"))
    until(lambda: len(got) == 2)
    headers, body = got[1]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(base64.b64decode(secret[6:]), signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    file = tmp_path / "body"
    file.write_bytes(body)
    given = ["--id", headers["webhook-id"], "--timestamp", headers["webhook-timestamp"]]
    verify = ["webhook", "verify", *given, "--signature", headers["webhook-signature"], str(file)]
    assert "right" in fine(stack.cortex(*verify, CORTEX_WEBHOOK_SECRET=secret))
    wrong = stack.cortex(*verify, CORTEX_WEBHOOK_SECRET="whsec_" + base64.b64encode(b"x" * 32).decode())
    assert (wrong.returncode, "[wrong_signature]" in wrong.stderr) == (1, True)
    assert stack.cortex(*verify).returncode == 2

    until(lambda: "delivered" in fine(stack.cortex("webhook", "deliveries", "pager", "--status", "delivered")))
    listed = json.loads(fine(stack.cortex("webhook", "deliveries", "pager", "--json")))
    assert [item["kind"] for item in listed] == ["event", "test"]
    assert "204" in fine(stack.cortex("webhook", "deliveries", "pager", "--show", str(listed[0]["id"])))
    assert fine(stack.cortex("webhook", "redeliver", "pager", str(listed[0]["id"]))) == "queued 1\n"
    until(lambda: len(got) == 3)
    assert got[2][0]["webhook-id"] == headers["webhook-id"]
    everything = ["--after", "0", "--until", str(listed[0]["sequence"])]
    assert fine(stack.cortex("webhook", "redeliver", "pager", *everything)) == "queued 1\n"
    assert fine(stack.cortex("webhook", "rotate-secret", "pager")).startswith("whsec_")
    assert fine(stack.cortex("webhook", "update", "pager", "--disable")) == "pager: off\n"
    assert secret not in fine(stack.cortex("webhook", "show", "pager", "--json"))
    assert "pager" in fine(stack.cortex("webhook", "list"))
    assert "[webhook_not_found]" in stack.cortex("webhook", "test", "nobody").stderr
    assert stack.cortex("webhook", "redeliver", "pager").returncode == 2
    assert stack.cortex("webhook", "update", "pager").returncode == 2
    assert fine(stack.cortex("webhook", "delete", "pager", "--yes")) == "deleted pager\n"

    acts = json.loads(fine(stack.cortex("audit", "list", "--action", "webhook.*", "--json")))
    assert [act["action"] for act in acts] == [
        "webhook.delete",
        "webhook.update",
        "webhook.rotate-secret",
        "webhook.create",
    ]
    assert "enabled: True -> False" in fine(stack.cortex("audit", "list", "--action", "webhook.update"))
    exported = tmp_path / "audit.csv"
    fine(stack.cortex("audit", "export", "-o", str(exported)))
    assert exported.read_text().startswith("id,at,actor,action,")
    assert secret not in exported.read_text()
    assert stack.cortex("audit", "export", "--format", "xml", "-o", str(exported)).returncode == 1


def test_why_is_a_headline_what_to_do_next_and_a_tree(stack: Stack) -> None:
    fine(stack.cortex("model", "create", "m", "--repo-id", "org/model"))
    never = fine(stack.cortex("model", "why", "m"))
    assert "has not been asked to run. admin created it" in never
    assert "-> Start it: cortex model start m." in never
    fine(stack.cortex("model", "start", "m", "--no-wait"))
    until(lambda: "The model became starting" in fine(stack.cortex("model", "why", "m")))
    told = fine(stack.cortex("model", "why", "m"))
    assert "admin asked it to run." in told
    assert "└── " in told
    answer = json.loads(fine(stack.cortex("model", "why", "m", "--version", "1", "--json")))
    assert answer["headline"].startswith("admin created it")
    assert "[model_not_found]" in stack.cortex("model", "why", "nope").stderr
