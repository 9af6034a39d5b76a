"""NiceGUI's files are asked for once, whatever number of browsers come."""

import httpx
import pytest
from nicegui import __version__
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cortex_console.adapters import nicegui_files
from cortex_console.adapters.nicegui_files import KeptFiles
from cortex_console.entrypoints.security import SecurityHeaders

FILES = f"/_nicegui/{__version__}"
TEXT = "lorem ipsum " * 400


class Site:
    """Files behind the compression of NiceGUI and before our headers, and how often each was read."""

    def __init__(self) -> None:
        self.read: list[str] = []
        app = Starlette(routes=[Route("/{path:path}", self.answer)])
        wrapped = SecurityHeaders(KeptFiles(GZipMiddleware(app)))
        self.browser = httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://here")

    async def answer(self, request: Request) -> PlainTextResponse:
        self.read.append(request.url.path)
        missing = request.url.path.endswith("missing.js")
        return PlainTextResponse(TEXT, 404 if missing else 200, {"Cache-Control": "immutable"})


async def test_a_file_is_read_and_compressed_once_and_has_headers_of_its_own() -> None:
    site = Site()
    first, second = [await site.browser.get(f"{FILES}/static/vue.js") for _ in range(2)]
    assert site.read == [f"{FILES}/static/vue.js"]
    assert first.text == second.text == TEXT
    assert second.headers["content-encoding"] == "gzip"
    assert (second.headers["cache-control"], second.headers["vary"]) == ("immutable", "Accept-Encoding")
    policies = {answer.headers["content-security-policy"] for answer in (first, second)}
    assert len(policies) == 2
    plain = await site.browser.get(f"{FILES}/static/vue.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == TEXT


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/models", {}),
        (f"{FILES}/dynamic_resources/x.css", {}),
        (f"{FILES}/static/missing.js", {}),
        (f"{FILES}/static/vue.js?x=1", {}),
        (f"{FILES}/static/vue.js", {"if-none-match": '"1"'}),
        (f"{FILES}/static/vue.js", {"range": "bytes=0-3"}),
    ],
)
async def test_everything_else_is_answered_anew(path: str, headers: dict[str, str]) -> None:
    site = Site()
    for _ in range(2):
        await site.browser.get(path, headers=headers)
    assert len(site.read) == 2


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nicegui_files, "MOST_BYTES", 3 * len(TEXT))
    site = Site()
    plain = {"accept-encoding": "identity"}
    for number in (1, 2, 3, 4, 1, 2, 3, 4):
        await site.browser.get(f"{FILES}/static/{number}.js", headers=plain)
    assert [path[-4] for path in site.read] == ["1", "2", "3", "4", "4"]
