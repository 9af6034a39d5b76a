"""NiceGUI as this console wants it: no other origins, no Tailwind, and a nonce on each of its own scripts."""

from collections.abc import Callable

from fastapi import FastAPI
from jinja2 import BaseLoader, Environment
from nicegui import Client, core, ui
from nicegui.client import templates

from cortex_console.adapters.nicegui_files import KeptFiles
from cortex_console.errors import PinnedError

_MARK = "<script"
_WITH_NONCE = '<script nonce="{{ request.state.csp_nonce }}"'


class _NonceLoader(BaseLoader):
    """NiceGUI's templates, whose own script elements get the nonce of the request. What pages put in gets none."""

    def __init__(self, original: BaseLoader) -> None:
        self._original = original

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        source, name, fresh = self._original.get_source(environment, template)
        return source.replace(_MARK, _WITH_NONCE), name, fresh


def install(app: FastAPI, *, reconnect_timeout_s: float) -> None:
    """Mount NiceGUI at the root of `app`.

    Raises:
        PinnedError: the installed NiceGUI is built otherwise than the pinned one.
    """
    loader = templates.env.loader
    if loader is None:
        raise PinnedError("NiceGUI's templates have no loader")
    if not isinstance(loader, _NonceLoader):
        if _MARK not in loader.get_source(templates.env, "index.html")[0]:
            raise PinnedError("NiceGUI's page has no script elements")
        templates.env.loader = _NonceLoader(loader)
    ui.run_with(
        app,
        title="Cortex",
        favicon=None,
        language="en-US",
        tailwind=False,
        reconnect_timeout=reconnect_timeout_s,
        binding_refresh_interval=None,
        show_welcome_message=False,
        storage_secret=None,
    )
    app.add_middleware(KeptFiles)


def open_pages() -> int:
    """Pages open in browsers."""
    return sum(1 for client in Client.instances.values() if client.has_socket_connection)


def readiness() -> str | None:
    """Why no page can be served yet; None when they can. Without the registry they say so themselves."""
    return None if core.loop is not None else "starting"
