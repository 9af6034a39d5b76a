"""Exports of the registry as files for the browser: passed on chunk by chunk, never held here."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import httpx
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse

from cortex_console.adapters import cookies
from cortex_console.adapters.admin_api import AdminApi
from cortex_console.domain.advice import next_step
from cortex_console.domain.navigation import sign_in_address
from cortex_console.errors import ConsoleError

EXPORTS = {"audit": "/audit/export", "usage": "/usage/export"}
_PASSED = ("content-type", "content-disposition")


def downloads_router(registry: httpx.AsyncClient) -> APIRouter:
    """`/download/<name>?…`: the query is the registry's."""
    router = APIRouter(include_in_schema=False)

    @router.get("/download/{name}")
    async def download(name: str, request: Request) -> Response:
        path = EXPORTS.get(name)
        if path is None:
            return Response(status_code=404)
        secrets = cookies.read(request)
        if secrets is None:
            return RedirectResponse(sign_in_address(), 303)
        api = AdminApi(registry, secrets, cookies.visitor(request))
        opened = AsyncExitStack()
        try:
            answer = await opened.enter_async_context(api.open_stream(path, dict(request.query_params)))
        except ConsoleError as error:
            if error.is_signed_out:
                return RedirectResponse(sign_in_address(reason="ended"), 303)
            told = f"{error.message}\n{error.code} · {next_step(error.code, error.status)}\n"
            return PlainTextResponse(told, status_code=error.status or 503)
        headers = {name: answer.headers[name] for name in _PASSED if name in answer.headers}
        return StreamingResponse(_pass_on(answer, opened), headers=headers | {"Cache-Control": "no-store"})

    return router


async def _pass_on(answer: httpx.Response, opened: AsyncExitStack) -> AsyncGenerator[bytes]:
    # An upstream that breaks off raises, so that the browser sees a broken download and not a short file.
    async with opened:
        async for chunk in answer.aiter_bytes():
            yield chunk
