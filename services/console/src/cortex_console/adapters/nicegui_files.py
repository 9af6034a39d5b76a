"""NiceGUI's own files, each compressed once: a browser that comes for the first time asks for thirty of them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from nicegui import __version__
from nicegui.dependencies import esm_modules
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 16 * 2**20
_FILES = f"/_nicegui/{__version__}/"
_MADE_ANEW = f"{_FILES}dynamic_resources/"
_CONDITIONS = ("if-none-match", "if-modified-since", "range")


_ALWAYS = (
    "fonts.css",
    "quasar.unimportant.prod.css",
    "quasar.important.prod.css",
    "nicegui.css",
    "vue.esm-browser.prod.js",
    "quasar.umd.prod.js",
    "nicegui.js",
    "socket.io.min.js",
    "dompurify.mjs",
)
_CHARTS = "nicegui-echart"


def opening_files() -> Iterator[tuple[str, str]]:
    """Addresses and kinds (`script`, `style`) of the large files of the first page: a browser loads them while people sign in."""
    for name in _ALWAYS:
        yield f"{_FILES}static/{name}", "style" if name.endswith(".css") else "script"
    for key, module in esm_modules.items():
        if module.name == _CHARTS:
            imported = re.findall(r'from"\./([^"]+)"', (module.path / "index.js").read_text("utf-8"))
            for name in ("index.js", *imported):
                yield f"{_FILES}esm/{key}/{name}", "script"


@dataclass(slots=True)
class _Answer:
    start: Message
    parts: list[bytes] = field(default_factory=list[bytes])


class KeptFiles:
    """Sends the file that was sent first for the same address, as it was sent then. Files of one version never change."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._kept: dict[tuple[str, bool], _Answer] = {}
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = _key(scope)
        if key is None:
            await self._app(scope, receive, send)
            return
        kept = self._kept.get(key)
        if kept is not None:
            await send({**kept.start, "headers": list(kept.start["headers"])})
            await send({"type": "http.response.body", "body": kept.parts[0]})
            return
        answer: _Answer | None = None

        async def send_and_keep(message: Message) -> None:
            nonlocal answer
            if message["type"] == "http.response.start":
                answer = _Answer({**message, "headers": list(message["headers"])}) if message["status"] == 200 else None
            elif answer is not None and message["type"] == "http.response.body":
                answer.parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    self._keep(key, answer)
            await send(message)

        await self._app(scope, receive, send_and_keep)

    def _keep(self, key: tuple[str, bool], answer: _Answer) -> None:
        body = b"".join(answer.parts)
        if self._bytes + len(body) <= MOST_BYTES and key not in self._kept:
            self._bytes += len(body)
            answer.parts = [body]
            self._kept[key] = answer


def _key(scope: Scope) -> tuple[str, bool] | None:
    """Address, and whether the answer may be compressed; None for what is answered anew."""
    if scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"]:
        return None
    path = str(scope["path"])
    if not path.startswith(_FILES) or path.startswith(_MADE_ANEW):
        return None
    headers = Headers(scope=scope)
    if any(name in headers for name in _CONDITIONS):
        return None
    return path, "gzip" in headers.get("accept-encoding", "")
