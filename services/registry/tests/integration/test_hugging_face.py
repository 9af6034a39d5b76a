"""config.json of Hugging Face models, from disk and from a Hub that is a server of our own."""

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_kit.errors import DomainError
from cortex_registry.adapters.hugging_face import MAX_BYTES, HuggingFaceConfigurations
from cortex_registry.errors import UnavailableError

pytestmark = pytest.mark.integration


class Hub(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/org/moved/resolve/main/config.json":
            self.send_response(302)
            self.send_header("Location", "/org/big/resolve/main/config.json")
            self.end_headers()
            return
        known = {"/org/big/resolve/main/config.json": {"model_type": "llama"}, "/org/huge/resolve/main/config.json": {}}
        status = {"/org/gated/resolve/main/config.json": 401, "/org/broken/resolve/main/config.json": 500}
        found = self.path in known
        self.send_response(200 if found else status.get(self.path, 404))
        self.end_headers()
        if "huge" in self.path:
            self.wfile.write(b" " * (MAX_BYTES + 10))
        elif found:
            self.wfile.write(json.dumps(known[self.path]).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True, args=(0.01,)).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


async def test_the_hub_is_asked_only_where_that_is_allowed(hub: str) -> None:
    with pytest.raises(DomainError) as refused:
        await HuggingFaceConfigurations(None, None, 5).hub("org/big")
    assert (refused.value.status, refused.value.code) == (409, "hub_lookups_off")
    configurations = HuggingFaceConfigurations(None, hub, 5)
    assert await configurations.hub("org/big") == {"model_type": "llama"}
    assert await configurations.hub("org/moved") == {"model_type": "llama"}


@pytest.mark.parametrize(
    ("repository", "code"),
    [("org/none", "repo_not_found"), ("org/gated", "repo_not_found"), ("org/huge", "invalid_config")],
)
async def test_what_the_hub_does_not_show_is_said(hub: str, repository: str, code: str) -> None:
    with pytest.raises(DomainError) as caught:
        await HuggingFaceConfigurations(None, hub, 5).hub(repository)
    assert caught.value.code == code


@pytest.mark.parametrize("where", ["broken", "away"])
async def test_a_hub_that_fails_is_tried_again_later(hub: str, where: str) -> None:
    url = hub if where == "broken" else "http://127.0.0.1:1"
    with pytest.raises(UnavailableError) as caught:
        await HuggingFaceConfigurations(None, url, 5).hub("org/broken")
    assert caught.value.code == "hub_unavailable"


async def test_no_link_and_no_pipe_leads_out_of_the_models_folder(tmp_path: Path) -> None:
    root, outside = tmp_path / "models", tmp_path / "outside"
    for folder in (root / "good", root / "pipe", root / "huge", outside):
        folder.mkdir(parents=True)
    (outside / "config.json").write_text('{"secret": 1}')
    (root / "link").symlink_to(outside)
    (root / "good" / "config.json").write_text('{"a": 1}')
    (root / "huge" / "config.json").write_bytes(b"{" + b" " * MAX_BYTES + b"}")
    os.mkfifo(root / "pipe" / "config.json")
    configurations = HuggingFaceConfigurations(root, None, 5)
    assert await configurations.local("good") == {"a": 1}
    for path, code in (
        ("link", "path_outside_models_root"),
        ("pipe", "file_not_found"),
        ("huge", "invalid_config"),
        ("none", "file_not_found"),
    ):
        with pytest.raises(DomainError) as caught:
            await configurations.local(path)
        assert caught.value.code == code, path
    with pytest.raises(DomainError) as unknown:
        await HuggingFaceConfigurations(None, None, 5).local("good")
    assert unknown.value.code == "models_dir_unknown"
