"""The command as users run it, as far as that needs no whole stack."""

import contextlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pytest

from cortex_cli.main import main
from cortex_cli.stack import lock
from cortex_cli.stack.home import Home
from cortex_cli.stack.ports import assign

pytestmark = pytest.mark.integration

MODEL = {
    "id": "0199",
    "name": "small",
    "served_model_name": "org/small",
    "engine_type": "llamacpp",
    "state": "running",
    "desired_state": "running",
    "reason": "1 replica healthy",
    "since": "2026-01-01T00:00:00Z",
}


class Fake(http.server.BaseHTTPRequestHandler):
    """Registry and gateway in one, as far as the commands look."""

    bodies: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/admin/models":
            self._json(200, {"items": [MODEL]})
        elif self.path.endswith("/logs?ordinal=0&tail=5"):
            self._json(200, {"lines": ["one", "two"]})
        else:
            self._json(200, MODEL)

    def do_POST(self) -> None:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"] or 0)) or "{}")
        self.bodies.append(body)
        if self.headers["authorization"] != "Bearer token":
            self._json(401, {"code": "unauthorized", "detail": "The admin token is wrong."})
        elif self.path == "/v1/chat/completions" and body["model"] != "org/small":
            self._json(404, {"error": {"message": "no such model", "code": "model_not_found"}})
        elif self.path == "/v1/chat/completions":
            self.send_response(200)
            self.end_headers()
            for word in ("Hello", " ", str(body["messages"][-1]["content"])):
                self.wfile.write(f"data: {json.dumps({'choices': [{'delta': {'content': word}}]})}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
        elif body.get("local_path") == "missing.gguf":
            self._json(422, {"code": "file_not_found", "detail": "missing.gguf does not exist."})
        else:
            self._json(201, MODEL)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _json(self, status: int, content: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())


@pytest.fixture
def environ(tmp_path: Path) -> Generator[dict[str, str]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fake)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    Fake.bodies.clear()
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith("CORTEX_")},
        "CORTEX_HOME": str(tmp_path),
        "CORTEX_REGISTRY_URL": url,
        "CORTEX_ADMIN_TOKEN": "token",
        "CORTEX_GATEWAY_URL": url,
        "CORTEX_API_KEY": "token",
        "NO_COLOR": "1",
    }
    server.shutdown()
    server.server_close()


def _cortex(environ: dict[str, str], *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command inside this process: a new one would spend its time importing."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environ, clear=True),
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


def test_the_installed_program_ends_with_the_exit_code(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("cortex")
    environ = {**os.environ, "CORTEX_HOME": str(tmp_path), "CORTEX_REGISTRY_URL": ""}
    done = subprocess.run(
        [program, "key", "list"], env=environ, capture_output=True, text=True, timeout=25, check=False
    )
    assert done.returncode == 3
    assert done.stderr == "cortex: Cortex does not run here: start it with `cortex up`.\n"


def test_a_model_is_created_from_flat_options_and_started(environ: dict[str, str]) -> None:
    done = _cortex(
        environ,
        "model",
        "create",
        "small",
        "--engine",
        "llamacpp",
        "--local-path",
        "a.gguf",
        "--set",
        "ngl=0",
        "--start",
    )
    assert done.returncode == 0, done.stderr
    assert Fake.bodies[0] == {"name": "small", "engine_type": "llamacpp", "local_path": "a.gguf", "ngl": 0}
    assert "created small" in done.stdout
    assert "small: running (1 replica healthy)" in done.stderr


def test_a_refusal_is_one_line_with_its_code(environ: dict[str, str]) -> None:
    done = _cortex(environ, "model", "create", "x", "--local-path", "missing.gguf")
    assert done.returncode == 1
    assert done.stderr.startswith("cortex: missing.gguf does not exist. [file_not_found] -> ")
    assert done.stdout == ""


def test_lists_and_shows_speak_json(environ: dict[str, str]) -> None:
    assert json.loads(_cortex(environ, "model", "list", "--json").stdout) == [MODEL]
    assert json.loads(_cortex(environ, "model", "show", "org/small", "--json").stdout) == MODEL
    assert json.loads(_cortex(environ, "model", "logs", "0199", "--tail", "5", "--json").stdout) == ["one", "two"]


def test_a_list_is_a_table(environ: dict[str, str]) -> None:
    assert "small  org/small  llamacpp  running" in _cortex(environ, "model", "list").stdout


@pytest.mark.parametrize("model", ["org/small", "small", "0199"])
def test_chat_streams_and_knows_a_model_by_any_of_its_names(environ: dict[str, str], model: str) -> None:
    done = _cortex(environ, "chat", model, "world")
    assert (done.returncode, done.stdout) == (0, "Hello world\n"), done.stderr


def test_chat_reads_standard_input(environ: dict[str, str]) -> None:
    assert _cortex(environ, "chat", "org/small", text="piped\n").stdout == "Hello piped\n"
    assert _cortex(environ, "chat", "org/small", text="\n").returncode == 2


def test_a_model_that_is_not_there_is_refused(environ: dict[str, str]) -> None:
    done = _cortex(environ, "model", "start", "nope")
    assert (done.returncode, "model_not_found" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    "command", [["status"], ["model", "list"], ["key", "list"], ["chat", "m", "x"], ["events"], ["down"]]
)
def test_what_does_not_run_is_said_with_exit_code_3(tmp_path: Path, command: list[str]) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CORTEX_")}
    done = _cortex({**environ, "CORTEX_HOME": str(tmp_path)}, *command)
    assert done.returncode == 3
    assert "start it with `cortex up`" in done.stderr


def test_a_refused_connection_has_exit_code_3(environ: dict[str, str]) -> None:
    port = assign(["nobody"], {})["nobody"]
    done = _cortex({**environ, "CORTEX_REGISTRY_URL": f"http://127.0.0.1:{port}"}, "model", "list")
    assert (done.returncode, "start it with `cortex up`" in done.stderr) == (3, True)


def test_a_taken_port_is_a_clear_error_before_anything_starts(environ: dict[str, str], tmp_path: Path) -> None:
    taken = environ["CORTEX_GATEWAY_URL"].rpartition(":")[2]
    done = _cortex({**environ, "CORTEX_GATEWAY_PORT": taken}, "up", "--no-demo")
    assert done.returncode == 1
    assert f"Port {taken} on 127.0.0.1 is taken" in done.stderr
    assert "CORTEX_GATEWAY_PORT=" in done.stderr
    assert list((tmp_path / "logs").iterdir()) == []
    assert lock.holder(tmp_path / "up.lock") is None


def test_a_second_up_on_one_home_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    with lock.hold(home.lock):
        done = _cortex(environ, "up", "--no-demo")
    assert done.returncode == 1
    assert f"Cortex already runs on {tmp_path} (process {os.getpid()})" in done.stderr


def test_a_gguf_is_inspected_without_a_server(environ: dict[str, str], tmp_path: Path, smollm2_gguf: Path) -> None:
    shown = json.loads(_cortex(environ, "gguf", "inspect", str(smollm2_gguf), "--json").stdout)
    assert (shown["architecture"], shown["quantization"], shown["context_length"]) == ("llama", "Q4_1", 8192)
    (tmp_path / "x.gguf").write_text("no")
    refused = _cortex(environ, "gguf", "inspect", str(tmp_path / "x.gguf"))
    assert (refused.returncode, "[not_gguf]" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["up"],
        ["down"],
        ["status"],
        ["model", "create"],
        ["key", "create"],
        ["chat"],
        ["events"],
        ["gguf", "inspect"],
    ],
)
def test_help_comes_with_examples(environ: dict[str, str], command: list[str]) -> None:
    done = _cortex(environ, *command, "--help")
    assert (done.returncode, "Examples:" in done.stdout) == (0, True)
