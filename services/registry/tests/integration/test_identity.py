"""Users, organisations, passwords, sessions and personal tokens over a real Postgres."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

CHEAP = {"password_memory_kib": 64, "password_time_cost": 1, "password_parallelism": 1}
GOOD = "correct zebra staples 41"
ROOT = {"Authorization": "Bearer an-admin-token-for-tests"}


class Browser:
    """A client with cookies that follows the rules for changes; `url` is asked without the root token."""

    def __init__(self, registry: Any) -> None:
        transport = registry.client._transport
        self.client = httpx.AsyncClient(transport=transport, base_url="http://registry")

    async def login(self, username: str, password: str, **headers: str) -> httpx.Response:
        body = {"username": username, "password": password}
        return await self.client.post("/admin/auth/login", json=body, headers=headers)

    async def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"X-CSRF-Token": self.client.cookies.get("cortex_csrf") or ""} | options.pop("headers", {})
        return await self.client.request(method, f"/admin{path}", headers=headers, **options)

    async def settle(self, username: str, one_time: str, password: str = GOOD) -> None:
        """Sign in for the first time."""
        assert (await self.login(username, one_time)).status_code == 200
        body = {"current_password": one_time, "new_password": password}
        changed = await self("POST", "/auth/password", json=body)
        assert changed.status_code == 200, changed.text


@pytest.fixture
async def registry(start_registry: Callable[..., Any]) -> AsyncIterator[Any]:
    async with start_registry(**CHEAP) as running:
        await running.ready()
        yield running


async def make_user(registry: Any, username: str, role: str = "viewer", **fields: Any) -> dict[str, Any]:
    made = await registry.client.post("/admin/users", json={"username": username, "role": role, **fields})
    assert made.status_code == 201, made.text
    return made.json()


async def signed_in(registry: Any, username: str, role: str = "viewer") -> tuple[Browser, dict[str, Any]]:
    user = await make_user(registry, username, role)
    browser = Browser(registry)
    await browser.settle(username, user["one_time_password"])
    return browser, user


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_the_one_time_password_opens_only_the_way_to_a_new_one(registry: Any) -> None:
    user = await make_user(registry, "alice", "admin")
    browser = Browser(registry)
    opened = await browser.login("ALICE", user["one_time_password"])
    assert opened.status_code == 200
    assert (opened.json()["must_change_password"], opened.json()["rights"]) == (True, ["self"])
    assert code(await browser("GET", "/models")) == (403, "password_change_required")
    assert code(await browser("POST", "/me/tokens", json={"name": "t"})) == (403, "password_change_required")
    for weak in ("short", "alice-likes-tea", "password1234", "aaaaaaaaaaaaaaa", "qwertyuiopas"):
        body = {"current_password": user["one_time_password"], "new_password": weak}
        assert code(await browser("POST", "/auth/password", json=body)) == (422, "weak_password"), weak
    old_cookie = browser.client.cookies["cortex_session"]
    changed = await browser(
        "POST", "/auth/password", json={"current_password": user["one_time_password"], "new_password": GOOD}
    )
    assert changed.status_code == 200, changed.text
    assert browser.client.cookies["cortex_session"] != old_cookie, "the session is rotated"
    assert (await browser("GET", "/models")).status_code == 200
    assert code(await Browser(registry).login("alice", user["one_time_password"])) == (401, "invalid_credentials")
    stale = await registry.client.get(
        "/admin/auth/me", headers={"authorization": "", "cookie": f"cortex_session={old_cookie}"}
    )
    assert stale.status_code == 401
