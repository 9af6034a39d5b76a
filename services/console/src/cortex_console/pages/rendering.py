"""From a request to a page: who asks, whether they may, what surrounds it, what happens when it fails."""

import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from nicegui import ui

from cortex_console import metrics
from cortex_console.adapters import cookies
from cortex_console.adapters.admin_api import AdminApi
from cortex_console.components.empty import empty_state, error_state
from cortex_console.components.header import page_header
from cortex_console.components.notify import show_error
from cortex_console.components.page import Installation, Page, PageContext, ThemeState
from cortex_console.components.shell import is_dark, shell
from cortex_console.domain.identity import Me
from cortex_console.domain.navigation import CHANGE_PASSWORD, sign_in_address
from cortex_console.errors import ConsoleError

RESPONSE_TIMEOUT_S = 20.0
_NOBODY = Me("", "", None, must_change_password=False, rights=frozenset())


def register(pages: Sequence[Page], installation: Installation) -> None:
    """Make NiceGUI serve all of them."""
    for page in pages:
        builder = _builder(page, pages, installation)
        ui.page(page.path, title=f"{page.title} · Cortex", response_timeout=RESPONSE_TIMEOUT_S, language="en-US")(
            builder
        )


def _builder(
    page: Page, pages: Sequence[Page], installation: Installation
) -> Callable[[Request], Coroutine[Any, Any, Response | None]]:
    async def build(request: Request) -> Response | None:
        begun = time.perf_counter()
        answer, outcome = await _answer(page, pages, installation, request)
        if answer is not None:
            ui.context.client.delete()  # nobody will ever connect to it
        metrics.PAGES.labels(page.path, outcome).inc()
        metrics.PAGE_SECONDS.labels(page.path).observe(time.perf_counter() - begun)
        return answer

    return build


async def _answer(
    page: Page, pages: Sequence[Page], installation: Installation, request: Request
) -> tuple[Response | None, str]:
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    secrets = cookies.read(request)
    if secrets is None:
        return RedirectResponse(sign_in_address(target), 303), "signed_out"
    api = AdminApi(installation.registry, secrets, cookies.visitor(request))
    context = PageContext(
        page=page,
        api=api,
        me=_NOBODY,
        theme=ThemeState(is_dark(ui.context.client)),
        installation=installation,
        parameters={name: str(value) for name, value in request.path_params.items()},
        query=dict(request.query_params),
    )
    try:
        context.me = Me.of(await api.get("/auth/me"))
    except ConsoleError as error:
        if error.is_signed_out:
            return RedirectResponse(sign_in_address(target, "ended"), 303), "signed_out"
        with shell(context, ()):
            _failed(page, error)
        return None, "failed"
    if context.me.must_change_password:
        return RedirectResponse(CHANGE_PASSWORD, 303), "password"
    return await _draw(context, pages)


async def _draw(context: PageContext, pages: Sequence[Page]) -> tuple[Response | None, str]:
    page = context.page
    ui.context.client.on_exception(show_error)
    with shell(context, pages) as main:
        reason = context.why_not(page.right)
        if reason is not None:
            page_header(page.title)
            empty_state("o_lock", "Not for your role", reason)
            return None, "forbidden"
        try:
            await page.build(context)
        except ConsoleError as error:
            main.clear()
            _failed(page, error)
            return None, "failed"
    return None, "built"


def _failed(page: Page, error: ConsoleError) -> None:
    page_header(page.title)
    error_state(error)
    if error.status == 0 or error.status >= 500:
        ui.timer(5.0, lambda: ui.navigate.reload(), once=True)
