"""Sessions of the console, forged requests, guessing, several registries, and a database that is away."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from cortex_testing.servers import free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

GOOD = "correct zebra staples 41"
CHEAP = {"password_memory_kib": 64, "password_time_cost": 1, "password_parallelism": 1}


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_the_cookie_is_for_the_browser_alone(people: Any, sign_in: Any, new_browser: Any, database: Any) -> None:
    await sign_in(people, "alice")
    opened = await new_browser(people).login("alice")
    cookies = {header.split("=", 1)[0]: header for header in opened.headers.get_list("set-cookie")}
    session = cookies["cortex_session"].lower()
    assert all(flag in session for flag in ("httponly", "samesite=strict", "path=/")), session
    assert "secure" not in session
    assert "domain" not in session
    assert "httponly" not in cookies["cortex_csrf"].lower()
    secret = cookies["cortex_session"].split("=", 1)[1].split(";")[0]
    assert secret not in opened.text
    dump = str([tuple(row) for row in await database.fetch("SELECT * FROM sessions")])
    assert secret not in dump
    assert opened.json()["csrf_token"] not in dump
    async with httpx.AsyncClient(transport=people.client._transport, base_url="https://registry") as https:
        answer = await https.post("/admin/auth/login", json={"username": "alice", "password": GOOD})
    assert all("secure" in header.lower() for header in answer.headers.get_list("set-cookie"))


async def test_a_change_needs_the_csrf_token_and_a_page_of_this_origin(people: Any, sign_in: Any) -> None:
    browser, _ = await sign_in(people, "alice", "admin")
    name = {"json": {"name": "Research"}}
    for headers in (
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "x" * 43},
        {"X-CSRF-Token": browser.client.cookies["cortex_session"]},
        {"X-CSRF-Token": "\xfcnicode"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://registry.evil.example"},
        {"Origin": "http://registry@evil.example"},
        {"Origin": "http://[registry"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        encoded = {key: value.encode("latin-1") for key, value in headers.items()}
        answer = await browser("POST", "/orgs", headers=encoded, **name)
        assert code(answer) == (403, "csrf_failed"), headers
    assert (await browser("GET", "/orgs", headers={"X-CSRF-Token": "", "Origin": "https://evil.example"})).json() == {
        "items": [],
        "next": None,
    }
    fine = {"Origin": "http://registry", "Sec-Fetch-Site": "same-origin"}
    assert (await browser("POST", "/orgs", headers=fine, **name)).status_code == 201
    foreign = await browser.login("alice", Origin="https://evil.example")
    assert code(foreign) == (403, "csrf_failed"), "nor does another site sign anybody in"


async def test_a_console_at_another_address_is_let_in_by_name(start_registry: Any, sign_in: Any) -> None:
    async with start_registry(**CHEAP, allowed_origins="https://console.example, https://b.example") as registry:
        await registry.ready()
        browser, _ = await sign_in(registry, "alice", "admin")
        headers = {"Origin": "https://console.example", "Sec-Fetch-Site": "same-site"}
        assert (await browser("POST", "/orgs", headers=headers, json={"name": "a"})).status_code == 201
        headers = {"Origin": "https://console.example.evil", "Sec-Fetch-Site": "same-site"}
        assert code(await browser("POST", "/orgs", headers=headers, json={"name": "b"})) == (403, "csrf_failed")


async def test_a_planted_cookie_is_never_taken_over(people: Any, sign_in: Any, new_browser: Any) -> None:
    _, user = await sign_in(people, "alice")
    victim = new_browser(people)
    planted = "A" * 43
    victim.client.cookies.set("cortex_session", planted, domain="registry.local")
    opened = await victim.client.post(
        "/admin/auth/login",
        json={"username": "alice", "password": GOOD},
        headers={"cookie": f"cortex_session={planted}; cortex_csrf=x"},
    )
    fresh = next(h for h in opened.headers.get_list("set-cookie") if h.startswith("cortex_session=")).split("=")[1][:43]
    assert fresh != planted

    async def me(cookie: str, **headers: str) -> int:
        given = {"authorization": "", "cookie": cookie} | headers
        return (await people.client.get("/admin/auth/me", headers=given)).status_code

    assert await me(f"cortex_session={fresh}") == 200
    for cookie in (
        f"cortex_session={planted}",
        f"cortex_session={planted}; cortex_session={fresh}",
        f"cortex_session={fresh}x",
        f"cortex_session={fresh[:-1]}",
        f'cortex_session="{fresh}"',
        f"CORTEX_SESSION={fresh}",
        "cortex_session=",
        "cortex_session",
        "cortex_session=" + "A" * 100_000,
        f"cortex_session={user['id']}",
        "cortex_session=alice",
        "cortex_session='; DROP TABLE sessions; --",
    ):
        assert await me(cookie) == 401, cookie[:80]
    # A bearer token that is wrong is not made good by a cookie.
    assert await me(f"cortex_session={fresh}", authorization="Bearer wrong") == 401


ODD_HEADERS = (
    "Bearer cortex-pat-",
    "Bearer cortex-pat-" + "A" * 43,
    "Bearer cortex-pat-" + "A" * 100_000,
    "Bearer cortex-pat-" + "\xe9" * 43,
    "Bearer  cortex-pat-' OR 1=1 --",
    "bearer",
    "Bearer\tan-admin-token-for-tests",
)


async def test_an_odd_authorization_header_is_nobody(people: Any) -> None:
    for header in ODD_HEADERS:
        answer = await people.client.get("/admin/auth/me", headers={"Authorization": header.encode("latin-1")})
        assert code(answer) == (401, "unauthorized"), header[:60]


async def test_sessions_end_with_the_password_the_role_and_the_account(
    people: Any, sign_in: Any, new_browser: Any
) -> None:
    first, user = await sign_in(people, "alice", "operator")
    second = new_browser(people)
    assert (await second.login("alice")).status_code == 200
    listed = (await first("GET", "/auth/sessions")).json()["items"]
    assert [session["current"] for session in listed].count(True) == 1
    assert len(listed) == 2
    body = {"current_password": GOOD, "new_password": "another good phrase 7"}
    assert (await second("POST", "/auth/password", json=body)).status_code == 200
    assert (await second("GET", "/auth/me")).status_code == 200
    assert (await first("GET", "/auth/me")).status_code == 401, "all other sessions end"
    assert code(await second("POST", "/auth/password", json=body)) == (401, "invalid_credentials")

    async def sign_in_again() -> Any:
        browser = new_browser(people)
        assert (await browser.login("alice", "another good phrase 7")).status_code == 200
        return browser

    path = f"/admin/users/{user['id']}"
    assert (await people.client.patch(path, json={"role": "viewer"})).status_code == 200
    assert (await second("GET", "/auth/me")).status_code == 401
    third, fourth = await sign_in_again(), await sign_in_again()
    assert (await third("DELETE", "/auth/sessions")).json() == {"ended": 1}
    assert (await fourth("GET", "/auth/me")).status_code == 401
    await people.client.patch(path, json={"disabled": True})
    assert (await third("GET", "/auth/me")).status_code == 401
    assert code(await new_browser(people).login("alice", "another good phrase 7")) == (401, "invalid_credentials")
    await people.client.patch(path, json={"disabled": False})
    assert (await third("GET", "/auth/me")).status_code == 401, "an ended session stays ended"
    fifth = await sign_in_again()
    assert (await fifth("POST", "/auth/logout")).status_code == 204
    assert (await fifth("GET", "/auth/me")).status_code == 401


async def test_a_session_ends_unused_and_in_any_case(start_registry: Any, sign_in: Any, database: Any) -> None:
    async with start_registry(**CHEAP, session_idle_s=60, session_lifetime_s=600, credentials_cache_s=0) as registry:
        await registry.ready()
        browser, _ = await sign_in(registry, "alice")
        await database.execute("UPDATE sessions SET last_seen_at = now() - interval '40 s'")
        assert (await browser("GET", "/auth/me")).status_code == 200
        seen = await database.fetchval("SELECT extract(epoch FROM now() - last_seen_at) FROM sessions")
        assert seen < 30, "the use was written down"
        await database.execute("UPDATE sessions SET last_seen_at = now() - interval '61 s'")
        assert (await browser("GET", "/auth/me")).status_code == 401
        assert (await browser.login("alice")).status_code == 200
        await database.execute("UPDATE sessions SET expires_at = now()")
        assert (await browser("GET", "/auth/me")).status_code == 401


async def test_guessing_is_slowed_down_alike_for_those_who_exist_and_those_who_do_not(
    start_registry: Any, sign_in: Any, new_browser: Any, database: Any
) -> None:
    async with start_registry(**CHEAP, login_free_attempts=3, login_free_attempts_per_address=1000) as registry:
        await registry.ready()
        await sign_in(registry, "alice")
        answers: dict[str, list[tuple[int, str]]] = {}
        bodies = set()
        for name in ("alice", "nobody"):
            for _ in range(5):
                answer = await new_browser(registry).login(name, "wrong wrong wrong")
                answers.setdefault(name, []).append(code(answer))
                if answer.status_code == 401:
                    bodies.add(answer.text)
        assert answers["alice"] == answers["nobody"]
        assert answers["alice"] == [(401, "invalid_credentials")] * 4 + [(429, "too_many_attempts")]
        assert len(bodies) == 1
        blocked = await new_browser(registry).login("ALICE")
        assert code(blocked) == (429, "too_many_attempts"), "also with the right password"
        assert int(blocked.headers["retry-after"]) >= 1
        assert await database.fetchval("SELECT count(*) FROM sessions") == 1
        await database.execute("UPDATE login_failures SET blocked_until = now()")
        assert (await new_browser(registry).login("alice")).status_code == 200
        assert await database.fetchval("SELECT count(*) FROM login_failures WHERE subject = 'user:alice'") == 0
        failed = await database.fetch("SELECT actor, detail::text FROM audit WHERE action = 'auth.login_failed'")
        assert len(failed) == 8
        assert "wrong wrong" not in str([tuple(row) for row in failed])


async def test_parallel_guesses_at_two_registries_share_one_allowance(
    start_registry: Any, sign_in: Any, new_browser: Any
) -> None:
    limits = CHEAP | {"login_free_attempts": 3, "login_free_attempts_per_address": 1000}
    async with start_registry(**limits) as one, start_registry(**limits) as two:
        await one.ready()
        await two.ready()
        await sign_in(one, "alice")
        guesses = [new_browser(one if n % 2 else two).login("alice", f"guess number {n}") for n in range(20)]
        answers = [code(answer) for answer in await asyncio.gather(*guesses)]
        assert answers.count((401, "invalid_credentials")) == 4
        assert answers.count((429, "too_many_attempts")) == 16


async def test_many_names_from_one_address_are_slowed_down_and_forwarded_addresses_need_trust(
    start_registry: Any, new_browser: Any
) -> None:
    limits = CHEAP | {"login_free_attempts_per_address": 3}
    async with start_registry(**limits) as registry:
        await registry.ready()
        answers = [
            await new_browser(registry).login(f"name{n}", "wrong", **{"X-Forwarded-For": f"192.0.2.{n}"})
            for n in range(5)
        ]
        assert code(answers[-1]) == (429, "too_many_attempts"), "invented addresses do not help"
    async with start_registry(**limits, trusted_proxies="127.0.0.0/8") as registry:
        await registry.ready()
        await asyncio.sleep(1)
        for n in range(8):
            headers = {"X-Forwarded-For": f"198.51.100.7, 203.0.113.{n}, 127.0.0.9"}
            assert code(await new_browser(registry).login(f"name{n}", "wrong", **headers)) == (
                401,
                "invalid_credentials",
            )
        spoofed = [
            code(
                await new_browser(registry).login(f"n{n}", "wrong", **{"X-Forwarded-For": f"10.0.0.{n}, 203.0.113.99"})
            )
            for n in range(5)
        ]
        assert spoofed[-1] == (429, "too_many_attempts"), "what stands before the nearest foreign address is invented"


async def test_a_revocation_reaches_another_registry_within_its_bound(
    start_registry: Any, sign_in: Any, eventually: Callable[..., Any]
) -> None:
    async with (
        start_registry(**CHEAP, credentials_cache_s=1) as one,
        start_registry(**CHEAP, credentials_cache_s=1) as two,
    ):
        await one.ready()
        await two.ready()
        browser, user = await sign_in(one, "alice")
        cookie = {"authorization": "", "cookie": f"cortex_session={browser.client.cookies['cortex_session']}"}

        async def status_at(registry: Any) -> int:
            return (await registry.client.get("/admin/auth/me", headers=cookie)).status_code

        assert await status_at(two) == 200
        await one.client.patch(f"/admin/users/{user['id']}", json={"disabled": True})
        assert await status_at(one) == 401, "at once where it was done"

        async def gone() -> bool:
            return await status_at(two) == 401

        await eventually(gone, 5)


async def test_a_stream_of_requests_does_not_cost_a_query_each(people: Any, sign_in: Any, database: Any) -> None:
    browser, _ = await sign_in(people, "alice")
    await browser("GET", "/auth/me")
    await database.execute("ALTER TABLE sessions RENAME TO sessions_away")
    try:
        answers = await asyncio.gather(*(browser("GET", "/auth/me") for _ in range(50)))
    finally:
        await database.execute("ALTER TABLE sessions_away RENAME TO sessions")
    assert {answer.status_code for answer in answers} == {200}


class Wire:
    """Stands between a registry and Postgres, and can be cut."""

    def __init__(self, dsn: str) -> None:
        self._target = urlsplit(dsn)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self.port = free_port()

    @property
    def dsn(self) -> str:
        host, port = self._target.hostname, self._target.port
        return self._target.geturl().replace(f"{host}:{port}", f"{host}:{self.port}")

    async def join(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._ends.clear()
        await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._ends += [writer, to_writer]
        if self._server is None or not self._server.is_serving():  # cut meanwhile
            to_writer.transport.abort()
            writer.transport.abort()
            return
        for source, sink in ((reader, to_writer), (to_reader, writer)):
            task = asyncio.ensure_future(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.transport.abort()


async def test_with_postgres_away_the_root_token_works_and_others_get_503(
    start_registry: Any, sign_in: Any, new_browser: Any, migrated_dsn: str, eventually: Callable[..., Any]
) -> None:
    wire = Wire(migrated_dsn)
    await wire.join()
    limits = CHEAP | {"credentials_cache_s": 0, "database_acquire_timeout_s": 0.5}
    async with start_registry(**limits, database_url=wire.dsn) as registry:
        await registry.ready()
        browser, _ = await sign_in(registry, "alice")
        await wire.cut()
        answer = await browser("GET", "/auth/me")
        assert code(answer) == (503, "database_unavailable")
        assert answer.headers["retry-after"]
        assert code(await new_browser(registry).login("alice")) == (503, "database_unavailable")
        assert (await registry.client.get("/admin/auth/me")).json()["kind"] == "root"
        await wire.join()

        async def back() -> bool:
            return (await browser("GET", "/auth/me")).status_code == 200

        await eventually(back, 15)
    await wire.cut()
    await wire.cut()


MALFORMED = (
    b"",
    b"[]",
    b"null",
    b"{",
    b'{"username": "alice"}',
    b'{"username": 1, "password": "x"}',
    b'{"username": "a", "password": "x", "role": "admin"}',
    b'{"username": "a\\u0000", "password": "x"}',
    b'{"username": "\\ud800", "password": "x"}',
    b'{"username": "' + b"a" * 600 + b'", "password": "x"}',
    b'{"username": "a", "password": "' + b"x" * 2000 + b'"}',
    b"\xff\xfe",
)


async def test_a_malformed_sign_in_is_refused_and_counts_nothing(people: Any, database: Any) -> None:
    for body in MALFORMED:
        answer = await people.client.post(
            "/admin/auth/login", content=body, headers={"content-type": "application/json", "authorization": ""}
        )
        assert answer.status_code in (400, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert b"x" * 50 not in answer.content
    assert await database.fetchval("SELECT count(*) FROM login_failures") == 0


async def test_a_hash_of_other_parameters_is_renewed_at_the_next_sign_in(
    start_registry: Any, sign_in: Any, new_browser: Any, database: Any
) -> None:
    async with start_registry(**CHEAP) as registry:
        await registry.ready()
        await sign_in(registry, "alice")
    before = await database.fetchval("SELECT password_hash FROM users")
    assert before.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    async with start_registry(**(CHEAP | {"password_time_cost": 2})) as registry:
        await registry.ready()
        assert (await new_browser(registry).login("alice")).status_code == 200
    assert (await database.fetchval("SELECT password_hash FROM users")).startswith("$argon2id$v=19$m=64,t=2,p=1$")


async def exchange(people: Any, text: str, new_password: str | None = None, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=people.client._transport, base_url="http://registry") as browser:
        body = {"code": text, "new_password": new_password}
        return await browser.post("/admin/auth/exchange", json=body, headers=headers)


async def test_a_sign_in_code_works_once_and_for_its_user_alone(people: Any, sign_in: Any, database: Any) -> None:
    await sign_in(people, "alice", "admin")
    made = (await people.client.post("/admin/auth/sign-in-codes")).json()
    assert made["username"] == "alice"
    forged = made["code"][:-1] + ("A" if made["code"][-1] != "A" else "B")
    for wrong in (forged, "", "x", made["code"].replace(".", ".9", 1)):
        assert code(await exchange(people, wrong)) == (401, "invalid_code")
    assert code(await exchange(people, made["code"], Origin="https://evil.example")) == (403, "csrf_failed")
    opened = await asyncio.gather(*(exchange(people, made["code"]) for _ in range(4)))
    assert sorted(answer.status_code for answer in opened) == [200, 401, 401, 401]
    assert next(answer for answer in opened if answer.status_code == 200).json()["username"] == "alice"
    assert code(await exchange(people, made["code"])) == (401, "invalid_code")
    actions = [row["action"] for row in await database.fetch("SELECT action FROM audit")]
    assert actions.count("auth.use_sign_in_code") == 1


async def test_a_sign_in_code_of_somebody_new_takes_a_password_of_their_own(people: Any, new_browser: Any) -> None:
    user = {"username": "newcomer", "role": "viewer"}
    assert (await people.client.post("/admin/users", json=user)).status_code == 201
    made = (await people.client.post("/admin/auth/sign-in-codes", json={"username": "NewComer"})).json()
    asked = await exchange(people, made["code"])
    assert (code(asked), asked.json()["username"]) == ((409, "new_password_required"), "newcomer")
    assert code(await exchange(people, made["code"], "password1234")) == (422, "weak_password")
    opened = await exchange(people, made["code"], GOOD)
    assert (opened.status_code, opened.json()["must_change_password"]) == (200, False)
    assert (await new_browser(people).login("newcomer", GOOD)).status_code == 200


async def test_a_sign_in_code_ends_with_any_change_of_its_user_and_with_time(
    people: Any, sign_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, user = await sign_in(people, "alice", "admin")
    first = (await people.client.post("/admin/auth/sign-in-codes")).json()["code"]
    changed = await people.client.patch(f"/admin/users/{user['id']}", json={"display_name": "Alice"})
    assert changed.status_code == 200
    assert code(await exchange(people, first)) == (401, "invalid_code")
    monkeypatch.setattr("cortex_registry.handlers.identity_links.LIFETIME_S", -1)
    late = (await people.client.post("/admin/auth/sign-in-codes")).json()["code"]
    assert code(await exchange(people, late)) == (401, "invalid_code")


async def test_the_command_prints_a_link_that_signs_in(people: Any, sign_in: Any, migrated_dsn: str) -> None:
    await sign_in(people, "alice", "admin")
    environment = os.environ | {
        "CORTEX_REGISTRY_DATABASE_URL": migrated_dsn,
        "CORTEX_SECRET_KEY": people.settings.secret_key.get_secret_value(),
    }
    command = (sys.executable, "-m", "cortex_registry", "sign-in-link", "--console", "https://console.example/")
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE)
    shown, _ = await process.communicate()
    link = shown.decode().strip()
    assert link.startswith("https://console.example/sign-in/link?code=")
    assert (await exchange(people, link.partition("code=")[2])).json()["username"] == "alice"


async def test_only_the_admin_token_makes_sign_in_codes(people: Any, sign_in: Any) -> None:
    browser, _ = await sign_in(people, "alice", "admin")
    assert code(await browser("POST", "/auth/sign-in-codes", json={})) == (403, "root_token_required")
    nobody = await people.client.post("/admin/auth/sign-in-codes", json={"username": "nobody"})
    assert code(nobody) == (404, "user_not_found")
