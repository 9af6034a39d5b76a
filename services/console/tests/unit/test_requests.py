"""What goes to the registry and what comes back, over a fake wire."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from cortex_console.adapters.admin_api import AdminApi, SessionSecrets, Visitor, sign_in
from cortex_console.adapters.http_client import new_client
from cortex_console.entrypoints.security import SameOrigin, SecurityHeaders
from cortex_console.errors import ConsoleError

SECRETS = SessionSecrets("session-secret-1", "csrf-1")
VISITOR = Visitor("203.0.113.7", "Firefox", "https")


def api(handler: httpx.MockTransport) -> AdminApi:
    return AdminApi(httpx.AsyncClient(transport=handler, base_url="http://registry"), SECRETS, VISITOR)


async def test_a_change_carries_session_csrf_and_the_browser_s_address() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"id": "m"})

    found = await api(httpx.MockTransport(answer)).patch("/models/m", {"replicas": 2}, version=3)
    assert found == {"id": "m"}
    headers = seen[0].headers
    assert headers["cookie"] == "cortex_session=session-secret-1"
    assert (headers["x-csrf-token"], headers["x-forwarded-for"], headers["if-match"]) == (
        "csrf-1",
        "203.0.113.7",
        '"3"',
    )
    assert seen[0].url.path == "/admin/models/m"


async def test_a_problem_becomes_one_error_with_its_fields() -> None:
    body = {
        "code": "invalid_request",
        "detail": "Two fields are wrong.",
        "errors": [{"field": "name", "code": "too_long", "message": "The name is too long."}],
        "limit": 3,
    }
    refusing = httpx.MockTransport(lambda _: httpx.Response(422, json=body, headers={"retry-after": "5"}))
    with pytest.raises(ConsoleError) as caught:
        await api(refusing).post("/models", {})
    error = caught.value
    assert (error.status, error.code, error.fields[0].field, error.retry_after_s) == (422, "invalid_request", "name", 5)
    assert error.details == {"limit": 3}


@pytest.mark.parametrize("answer", [httpx.Response(502, text="<html>"), httpx.Response(500)])
async def test_an_answer_that_is_no_problem_is_an_error_all_the_same(answer: httpx.Response) -> None:
    with pytest.raises(ConsoleError) as caught:
        await api(httpx.MockTransport(lambda _: answer)).get("/models")
    assert caught.value.code == f"http_{answer.status_code}"


async def test_nobody_there_is_said_in_words() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(ConsoleError) as caught:
        await api(httpx.MockTransport(fail)).get("/models")
    assert (caught.value.status, caught.value.code) == (0, "registry_unavailable")


async def test_cookies_of_one_user_never_reach_another() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert "cookie" not in request.headers
        return httpx.Response(
            200,
            json={"csrf_token": "c", "expires_at": "2030-01-01T00:00:00Z"},
            headers={"set-cookie": "cortex_session=of-somebody; Path=/; HttpOnly"},
        )

    client = new_client("http://registry", timeout_s=5, connections=4)
    client._transport = httpx.MockTransport(answer)
    async with client:
        opened = await sign_in(client, "a", "b", VISITOR)
        assert opened.secrets.session == "of-somebody"
        await sign_in(client, "c", "d", VISITOR)  # the assertion above holds for the second request, too
        assert len(client.cookies.jar) == 0


def test_secrets_are_in_no_repr() -> None:
    assert "secret" not in repr(SECRETS)


async def _hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.state.csp_nonce)


def site() -> httpx.AsyncClient:
    app = Starlette(routes=[Route("/x", _hello, methods=["GET", "POST"])])
    wrapped = SecurityHeaders(SameOrigin(app, allowed=["https://console.example"]))
    return httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://here")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://here"}, 200),
        ({"origin": "https://here"}, 200),
        ({"origin": "https://console.example"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "http://here"}, 200),
    ],
)
async def test_changes_come_from_this_site(headers: dict[str, str], status: int) -> None:
    async with site() as browser:
        assert (await browser.post("/x", headers=headers)).status_code == status
        assert (await browser.get("/x", headers=headers)).status_code == 200


async def test_each_answer_has_its_own_nonce() -> None:
    async with site() as browser:
        first, second = await browser.get("/x"), await browser.get("/x")
    assert f"'nonce-{first.text}'" in first.headers["content-security-policy"]
    assert first.text != second.text


@pytest.mark.parametrize(("method", "tries"), [("GET", 2), ("POST", 1)])
async def test_reading_is_tried_once_more_on_a_connection_that_was_closed_meanwhile(method: str, tries: int) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if len(seen) == 1:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        return httpx.Response(200, json={"id": "m"})

    registry = api(httpx.MockTransport(answer))
    if method == "GET":
        assert await registry.get("/models/m") == {"id": "m"}
    else:
        with pytest.raises(ConsoleError):
            await registry.post("/models", {"name": "m"})
    assert len(seen) == tries


async def test_reading_is_not_tried_for_ever() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)

    with pytest.raises(ConsoleError) as caught:
        await api(httpx.MockTransport(answer)).get("/models/m")
    assert caught.value.status == 0
