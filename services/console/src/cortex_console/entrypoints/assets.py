"""Style, script and logo, at addresses that change with their content."""

import hashlib
from importlib.resources import files

from fastapi import APIRouter, Response

from cortex_console import theme

_CACHE = {"Cache-Control": "public, max-age=31536000, immutable"}
_FOLDER = files("cortex_console") / "assets"
_STYLES = (
    "base.css",
    "shell.css",
    "components.css",
    "plain.css",
    "pages.css",
    "people.css",
    "model_form.css",
    "watching.css",
    "using.css",
)


def _content() -> dict[str, tuple[str, bytes]]:
    style = theme.stylesheet() + "".join((_FOLDER / name).read_text("utf-8") for name in _STYLES)
    return {
        "console.css": ("text/css", style.encode()),
        "console.js": ("text/javascript", (_FOLDER / "console.js").read_bytes()),
        "logo.svg": ("image/svg+xml", (_FOLDER / "logo.svg").read_bytes()),
    }


class Assets:
    """All of them, read once."""

    def __init__(self) -> None:
        self._content = _content()
        digest = hashlib.sha256(b"".join(data for _, data in self._content.values())).hexdigest()
        self.base = f"/assets/{digest[:12]}"
        """Address of the folder."""

    def router(self) -> APIRouter:
        """`/assets/<version>/<name>`; an old version gets the present content, uncached."""
        router = APIRouter(include_in_schema=False)

        @router.get("/assets/{version}/{name}")
        async def asset(version: str, name: str) -> Response:
            found = self._content.get(name)
            if found is None:
                return Response(status_code=404)
            kind, data = found
            current = f"/assets/{version}" == self.base
            return Response(data, media_type=kind, headers=_CACHE if current else {"Cache-Control": "no-store"})

        @router.get("/favicon.ico")
        async def favicon() -> Response:
            kind, data = self._content["logo.svg"]
            return Response(data, media_type=kind, headers={"Cache-Control": "public, max-age=86400"})

        return router
