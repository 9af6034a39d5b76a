"""Every route as nobody, viewer, operator and admin: `rights.txt` says what each of them gets."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr

from cortex_registry.adapters.identity_passwords import ArgonPasswords, HashCost
from cortex_registry.app import build

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

TABLE = Path(__file__).with_name("rights.txt")
WHO = ("nobody", "viewer", "operator", "admin")
GOOD = "correct zebra staples 41"
SOME_ID = "01995c3e-7a00-7000-8000-000000000001"
LOGOUT = ("POST", "/admin/auth/logout")

Route = tuple[str, str]


def read_table() -> dict[Route, tuple[str, ...]]:
    rows: dict[Route, tuple[str, ...]] = {}
    for line in TABLE.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            method, path, *verdicts = line.split()
            assert (method, path) not in rows, f"twice in the table: {line}"
            assert len(verdicts) == len(WHO), line
            assert set(verdicts) <= {"401", "403", "ok"}, line
            rows[method, path] = tuple(verdicts)
    return rows


def routes_of(app: Any) -> set[Route]:
    found: set[Route] = set()
    for context in iter_route_contexts(app.routes):
        if context.path is not None and context.path.startswith("/admin"):
            found |= {(method, context.path) for method in (context.methods or set()) - {"HEAD"}}
    return found


@dataclass
class Caller:
    """Speaks ASGI, and leaves as soon as an answer has begun: some never end."""

    app: Any
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, Mapping[str, list[str]]]:
        started: asyncio.Future[tuple[int, Mapping[str, list[str]]]] = asyncio.get_running_loop().create_future()
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await started
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start" and not started.done():
                headers: dict[str, list[str]] = {}
                for name, value in message["headers"]:
                    headers.setdefault(name.decode(), []).append(value.decode())
                started.set_result((message["status"], headers))

        given = {"host": "registry", "content-type": "application/json"} | self.headers
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("192.0.2.1", 1),
            "server": ("registry", 80),
        }
        task = asyncio.ensure_future(self.app(scope, receive, send))
        try:
            async with asyncio.timeout(20):
                await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
                assert started.done(), (method, path)
                return started.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def sign_in(app: Any, username: str) -> Caller:
    body = f'{{"username": "{username}", "password": "{GOOD}"}}'.encode()
    status, headers = await Caller(app).ask("POST", "/admin/auth/login", body)
    assert status == 200
    cookies = dict(header.split(";")[0].split("=", 1) for header in headers["set-cookie"])
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return Caller(app, {"cookie": cookie, "x-csrf-token": cookies["cortex_csrf"]})


@pytest.fixture
async def app(make_settings: Callable[..., Any], database: Any) -> AsyncIterator[Any]:
    settings = make_settings(password_memory_kib=64, password_time_cost=1, password_parallelism=1)
    async with build(settings) as service:
        tasks = [asyncio.ensure_future(service.tasks[name]()) for name in ("postgres",)]
        root = Caller(service.http, {"authorization": f"Bearer {settings.admin_token.get_secret_value()}"})
        while (await root.ask("GET", "/admin/users"))[0] == 503:
            await asyncio.sleep(0.05)
        for role in WHO[1:]:
            user = f'{{"username": "{role}-user", "role": "{role}"}}'.encode()
            assert (await root.ask("POST", "/admin/users", user))[0] == 201
        # A hash of GOOD for all of them, instead of three changes of a one-time password.
        known = await ArgonPasswords(HashCost(1, 64, 1, 1)).hash(GOOD)
        await database.execute("UPDATE users SET password_hash = $1, must_change_password = FALSE", known)
        yield service.http
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_table_names_every_route_and_no_other(make_settings: Callable[..., Any]) -> None:
    async with build(make_settings(admin_token=SecretStr("x" * 32))) as service:
        real, listed = routes_of(service.http), set(read_table())
    assert not (real - listed), f"add to {TABLE.name}: {sorted(real - listed)}"
    assert not (listed - real), f"gone, take out of {TABLE.name}: {sorted(listed - real)}"


async def test_every_route_gives_everybody_what_the_table_says(app: Any) -> None:
    callers = {"nobody": Caller(app)} | {role: await sign_in(app, f"{role}-user") for role in WHO[1:]}
    wrong: list[str] = []
    for (method, path), verdicts in sorted(read_table().items()):
        for who, expected in zip(WHO, verdicts, strict=True):
            status, _ = await callers[who].ask(method, fill(path))
            got = str(status) if status in (401, 403) else "ok"
            if got != expected or status == 500:
                wrong.append(f"{method} {path} as {who}: {status}, the table says {expected}")
            if (method, path) == LOGOUT and who != "nobody":
                callers[who] = await sign_in(app, f"{who}-user")
    assert not wrong, "\n".join(wrong)


def fill(path: str) -> str:
    """The path with ids that nothing has; empty bodies and unknown ids are refused after the rights are asked."""
    while "{" in path:
        before, _, rest = path.partition("{")
        _, _, after = rest.partition("}")
        path = f"{before}{SOME_ID}{after}"
    return path
