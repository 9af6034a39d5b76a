"""An image registry for one image, as slow and as broken as a test wants it.

`python small_registry.py LAYER CONFIG PAUSE_S` serves a packed layer from a file, prints the image's reference and
digest, and a line for every time that the layer is asked for.
"""

import gzip
import hashlib
import http.server
import io
import json
import os
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
PIECE = 64 * 1024


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _random_layer(size: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        information = tarfile.TarInfo("random.bin")
        information.size = size
        archive.addfile(information, io.BytesIO(os.urandom(size)))
    return gzip.compress(stream.getvalue(), compresslevel=1)


def _image(packed: bytes, settings: Mapping[str, Any]) -> dict[str, bytes]:
    """Blobs by digest, and the manifest as `manifest`."""
    layer = gzip.decompress(packed)
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64"),
            "os": "linux",
            "config": dict(settings),
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": len(config),
            "digest": _digest(config),
        },
        "layers": [
            {
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "size": len(packed),
                "digest": _digest(packed),
            }
        ],
    }
    return {_digest(config): config, _digest(packed): packed, "manifest": json.dumps(manifest).encode()}


@dataclass
class SmallRegistry:
    """`pause_s` after each 64 KiB of a layer. `refuse` answers every manifest with this status.

    Without a packed `layer` the image is `size` random bytes.
    """

    size: int = 1024 * 1024
    pause_s: float = 0.0
    refuse: int | None = None
    layer: bytes | None = None
    config: Mapping[str, Any] = field(default_factory=lambda: {"Cmd": ["/none"]})
    layer_requests: int = 0
    on_layer: Callable[[], None] = lambda: None
    broken_off: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        layer = self.layer if self.layer is not None else _random_layer(self.size)
        self._content = _image(layer, self.config)
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                registry._answer(self, body=False)

            def do_GET(self) -> None:
                registry._answer(self, body=True)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def reference(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}/small/image:one"

    @property
    def digest(self) -> str:
        return _digest(self._content["manifest"])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler, *, body: bool) -> None:
        what = handler.path.rpartition("/")[2]
        if handler.path.rstrip("/") == "/v2":
            return self._send(handler, b"{}", "application/json", body)
        if "/manifests/" in handler.path:
            if self.refuse is not None:
                return self._refuse(handler, self.refuse)
            if what not in ("one", self.digest):
                return self._refuse(handler, 404)
            return self._send(handler, self._content["manifest"], MANIFEST, body)
        if what not in self._content:
            return self._refuse(handler, 404)
        return self._send(handler, self._content[what], "application/octet-stream", body)

    def _refuse(self, handler: http.server.BaseHTTPRequestHandler, status: int) -> None:
        code = {401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}[status]
        message = {404: "manifest unknown", 429: "toomanyrequests: slow down"}.get(status, "access denied")
        text = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    def _send(self, handler: http.server.BaseHTTPRequestHandler, data: bytes, kind: str, body: bool) -> None:
        handler.send_response(200)
        handler.send_header("content-type", kind)
        handler.send_header("content-length", str(len(data)))
        handler.send_header("docker-content-digest", _digest(data))
        handler.end_headers()
        if not body:
            return
        slow = self.pause_s > 0 and len(data) > PIECE
        if len(data) > PIECE:
            self.layer_requests += 1
            self.on_layer()
        try:
            for start in range(0, len(data), PIECE):
                handler.wfile.write(data[start : start + PIECE])
                if slow:
                    time.sleep(self.pause_s)
        except OSError:
            self.broken_off.set()


if __name__ == "__main__":
    registry = SmallRegistry(
        pause_s=float(sys.argv[3]),
        layer=Path(sys.argv[1]).read_bytes(),
        config=json.loads(sys.argv[2]),
        on_layer=lambda: print("layer", flush=True),  # noqa: T201
    )
    print(json.dumps({"reference": registry.reference, "digest": registry.digest}), flush=True)  # noqa: T201
    threading.Event().wait()
