"""Users, organisations, passwords and personal tokens over a real Postgres."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

GOOD = "correct zebra staples 41"


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def rows(database: Any, query: str, *arguments: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in await database.fetch(query, *arguments)]


async def test_the_one_time_password_opens_only_the_way_to_a_new_one(people: Any, new_browser: Any) -> None:
    made = await people.client.post("/admin/users", json={"username": "alice", "role": "admin"})
    one_time, browser = made.json()["one_time_password"], new_browser(people)
    opened = await browser.login("ALICE", one_time)
    assert opened.status_code == 200
    assert (opened.json()["must_change_password"], opened.json()["rights"]) == (True, ["account"])
    assert code(await browser("GET", "/models")) == (403, "password_change_required")
    for path in ("/me/tokens", "/me/keys"):
        assert code(await browser("POST", path, json={"name": "t"})) == (403, "password_change_required")
    for weak in ("short", "alice-likes-tea", "password1234", "aaaaaaaaaaaaaaa", "qwertyuiopas", "\x00" * 20):
        body = {"current_password": one_time, "new_password": weak}
        answer = await browser("POST", "/auth/password", json=body)
        assert answer.status_code == 422, weak
    old_cookie = browser.client.cookies["cortex_session"]
    changed = await browser("POST", "/auth/password", json={"current_password": one_time, "new_password": GOOD})
    assert changed.status_code == 200, changed.text
    assert browser.client.cookies["cortex_session"] != old_cookie, "the session is rotated"
    assert (await browser("GET", "/models")).status_code == 200
    assert code(await new_browser(people).login("alice", one_time)) == (401, "invalid_credentials")
    stale = await people.client.get(
        "/admin/auth/me", headers={"authorization": "", "cookie": f"cortex_session={old_cookie}"}
    )
    assert stale.status_code == 401


async def test_users_are_made_listed_filtered_changed_and_deleted_with_audit_and_events(
    people: Any, database: Any
) -> None:
    client = people.client
    org = (await client.post("/admin/orgs", json={"name": "Research"})).json()
    made = {}
    for name, role in (("alice", "admin"), ("Bob", "operator"), ("carol", "viewer")):
        answer = await client.post("/admin/users", json={"username": name, "role": role, "org_id": org["id"]})
        assert answer.status_code == 201, answer.text
        assert answer.headers["cache-control"] == "no-store"
        made[name] = answer.json()
    assert "password" not in (await client.get("/admin/users")).text.replace("must_change_password", "")
    first = (await client.get("/admin/users?limit=2")).json()
    rest = (await client.get(f"/admin/users?limit=2&after={first['next']}")).json()
    assert [user["username"] for user in (*first["items"], *rest["items"])] == ["alice", "Bob", "carol"]
    assert rest["next"] is None
    for query, names in (
        ("role=operator", ["Bob"]),
        ("q=CAR", ["carol"]),
        (f"org_id={org['id']}&disabled=false", ["alice", "Bob", "carol"]),
        ("disabled=true", []),
    ):
        found = (await client.get(f"/admin/users?{query}")).json()["items"]
        assert [user["username"] for user in found] == names, query
    looked_up = (await client.get(f"/admin/users/lookup?ids={made['Bob']['id']}")).json()
    assert looked_up == {"items": [{"id": made["Bob"]["id"], "name": "Bob"}]}

    path = f"/admin/users/{made['carol']['id']}"
    etag = (await client.get(path)).headers["etag"]
    changed = await client.patch(path, json={"role": "operator", "display_name": "Carol"}, headers={"If-Match": etag})
    assert (changed.json()["role"], changed.json()["version"], changed.headers["etag"]) == ("operator", 2, '"2"')
    assert code(await client.patch(path, json={"role": "viewer"}, headers={"If-Match": etag})) == (
        412,
        "precondition_failed",
    )
    assert (await client.patch(path, json={"role": "operator"})).json()["version"] == 2, "nothing changed"
    for field in ("username", "display_name", "role", "disabled"):
        assert code(await client.patch(path, json={field: None})) == (422, "invalid_request"), field
    assert (await client.get(f"/admin/orgs/{org['id']}")).json()["users"] == 3
    refused = await client.delete(f"/admin/orgs/{org['id']}")
    assert (code(refused), refused.json()["users"]) == ((409, "org_not_empty"), 3)
    assert (await client.delete(path)).status_code == 204
    assert code(await client.get(path)) == (404, "user_not_found")

    audit = await rows(
        database, "SELECT actor, action, detail::text FROM audit WHERE subject LIKE 'user/%' ORDER BY id"
    )
    assert [row["action"] for row in audit] == ["user.create"] * 3 + ["user.update", "user.delete"]
    assert '"before": {"role": "viewer"' in audit[3]["detail"]
    for user in made.values():
        assert all(user["one_time_password"] not in row["detail"] for row in audit)


async def test_an_organisation_with_keys_is_kept_and_says_why(people: Any) -> None:
    client = people.client
    org = (await client.post("/admin/orgs", json={"name": "Physics"})).json()
    assert code(await client.post("/admin/orgs", json={"name": " PHYSICS "})) == (409, "org_name_taken")
    key = (await client.post("/admin/keys", json={"name": "k", "org_id": org["id"]})).json()
    refused = await client.delete(f"/admin/orgs/{org['id']}")
    assert (code(refused), refused.json()["keys"]) == ((409, "org_not_empty"), 1)
    assert (await client.delete(f"/admin/keys/{key['id']}")).status_code == 204
    renamed = await client.patch(f"/admin/orgs/{org['id']}", json={"name": "Chemistry"})
    assert (renamed.json()["name"], renamed.json()["version"]) == ("Chemistry", 2)
    assert (await client.delete(f"/admin/orgs/{org['id']}", headers={"If-Match": '"2"'})).status_code == 204


async def test_a_user_whose_keys_work_is_kept_and_says_why(people: Any) -> None:
    client = people.client
    user = (await client.post("/admin/users", json={"username": "kim"})).json()
    key = (await client.post("/admin/keys", json={"name": "k", "user_id": user["id"]})).json()
    refused = await client.delete(f"/admin/users/{user['id']}")
    assert (code(refused), refused.json()["keys"]) == ((409, "user_has_keys"), 1)
    await client.delete(f"/admin/keys/{key['id']}")
    assert (await client.delete(f"/admin/users/{user['id']}")).status_code == 204


async def test_the_last_administrator_stays_even_when_two_remove_each_other(people: Any, sign_in: Any) -> None:
    (alice, a), (bob, b) = [await sign_in(people, name, "admin") for name in ("alice", "bob")]
    for own, path in ((alice, a["id"]), (bob, b["id"])):
        assert code(await own("PATCH", f"/users/{path}", json={"disabled": True})) == (409, "own_account")
        assert code(await own("PATCH", f"/users/{path}", json={"role": "viewer"})) == (409, "own_account")
        assert code(await own("DELETE", f"/users/{path}")) == (409, "own_account")
    answers = await asyncio.gather(
        alice("PATCH", f"/users/{b['id']}", json={"role": "viewer"}),
        bob("DELETE", f"/users/{a['id']}"),
    )
    # The loser of the race is refused: as the last one's enemy, or because they are nobody any more.
    assert min(answer.status_code for answer in answers) in (200, 204), [answer.text for answer in answers]
    assert sum(answer.is_success for answer in answers) == 1
    admins = (await people.client.get("/admin/users?role=admin&disabled=false")).json()["items"]
    assert len(admins) == 1
    last = f"/admin/users/{admins[0]['id']}"
    assert code(await people.client.patch(last, json={"disabled": True})) == (409, "last_admin")
    assert code(await people.client.patch(last, json={"role": "operator"})) == (409, "last_admin")
    assert code(await people.client.delete(last)) == (409, "last_admin")


DECEIVING = (
    b'""',
    b'" "',
    b'"a b"',
    b'"a\\u0000b"',
    b'"a/b"',
    b'"<script>"',
    b'"' + b"a" * 65 + b'"',
    b'"\\u202eadmin"',
    b'"ad\\u200bmin"',
    b'"-x"',
    b'"\\ud800"',
    b'"a\\nb"',
    b"3",
    b"null",
)


async def test_a_name_that_deceives_or_cannot_be_stored_is_refused(people: Any, database: Any) -> None:
    for name in DECEIVING:
        body, headers = b'{"username": ' + name + b"}", {"content-type": "application/json"}
        answer = await people.client.post("/admin/users", content=body, headers=headers)
        assert code(answer) == (422, "invalid_request"), name
    assert await database.fetchval("SELECT count(*) FROM users") == 0
    assert await database.fetchval("SELECT count(*) FROM audit") == 0


async def test_names_that_people_take_for_the_same_are_the_same(people: Any, sign_in: Any, new_browser: Any) -> None:
    await sign_in(people, "Straße")
    for twin in ("straße", "STRASSE", "ＳＴＲＡＳＳＥ", "Stra\u00dfe"):
        assert code(await people.client.post("/admin/users", json={"username": twin})) == (409, "username_taken"), twin
    assert (await new_browser(people).login("strasse")).status_code == 200


async def test_bad_queries_and_bodies_change_nothing(people: Any, database: Any) -> None:
    client = people.client
    for path in (
        "/admin/users?limit=0",
        "/admin/users?limit=1001",
        "/admin/users?after=x",
        "/admin/users?org_id=x",
        "/admin/users?role=root",
        "/admin/users?q=%00",
        f"/admin/users?q={'x' * 200}",
        "/admin/users/lookup?ids=x",
        "/admin/orgs?after=1",
    ):
        assert code(await client.get(path)) == (422, "invalid_request"), path
    for path in (
        "/admin/users/x",
        "/admin/users/%00",
        "/admin/orgs/x",
        "/admin/orgs/01995c3e-7a00-7000-8000-000000000001",
    ):
        assert (await client.get(path)).status_code == 404, path
        assert (await client.patch(path, json={})).status_code == 404, path
        assert (await client.delete(path)).status_code == 404, path
    for body in (
        {"username": "x", "role": "root"},
        {"username": "x", "org_id": "x"},
        {"username": "x", "password": GOOD},
        {"username": "x", "display_name": "\u202e"},
        [],
        {},
    ):
        assert code(await client.post("/admin/users", json=body)) == (422, "invalid_request"), body
    missing = {"username": "x", "org_id": "01995c3e-7a00-7000-8000-000000000001"}
    assert code(await client.post("/admin/users", json=missing)) == (422, "org_not_found")
    large = await client.post("/admin/users", json={"username": "x" * 300_000})
    assert code(large) == (413, "body_too_large")
    assert await database.fetchval("SELECT count(*) FROM users") == 0


async def test_a_personal_token_never_has_more_rights_than_its_user_has_now(people: Any, sign_in: Any) -> None:
    browser, user = await sign_in(people, "alice", "admin")
    made = await browser("POST", "/me/tokens", json={"name": "ci"})
    capped = await browser("POST", "/me/tokens", json={"name": "look", "role": "viewer"})
    assert (made.status_code, made.json()["role"], capped.json()["role"]) == (201, "admin", "viewer")
    secret = made.json()["token"]
    assert secret not in (await browser("GET", "/me/tokens")).text

    async def ask(method: str, path: str, token: str = secret, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return await people.client.request(method, f"/admin{path}", headers=headers, **options)

    assert (await ask("GET", "/users")).status_code == 200
    assert code(await ask("GET", "/users", capped.json()["token"])) == (403, "forbidden")
    assert code(await ask("POST", "/me/tokens", json={"name": "more"})) == (403, "session_required")
    body = {"current_password": GOOD, "new_password": GOOD + "!"}
    assert code(await ask("POST", "/auth/password", json=body)) == (403, "session_required")
    await people.client.post("/admin/users", json={"username": "other", "role": "admin"})
    await people.client.patch(f"/admin/users/{user['id']}", json={"role": "viewer"})
    assert code(await ask("GET", "/users")) == (403, "forbidden"), "the user was demoted"
    assert (await ask("GET", "/models")).status_code == 200
    await people.client.post(f"/admin/users/{user['id']}/reset-password")
    assert code(await ask("GET", "/models")) == (403, "password_change_required")
    await people.client.patch(f"/admin/users/{user['id']}", json={"disabled": True})
    assert (await ask("GET", "/models")).status_code == 401


async def test_a_token_expires_is_revoked_and_says_when_it_was_used(
    people: Any, sign_in: Any, database: Any, eventually: Callable[..., Any]
) -> None:
    browser, _ = await sign_in(people, "alice")
    for expiry in ("2001-01-01T00:00:00Z", "x", 3.5e300):
        answer = await browser("POST", "/me/tokens", json={"name": "t", "expires_at": expiry})
        assert code(answer) == (422, "invalid_request"), expiry
    made = (await browser("POST", "/me/tokens", json={"name": "t", "expires_at": "2999-01-01T00:00:00Z"})).json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    for _ in range(5):
        assert (await people.client.get("/admin/auth/me", headers=headers)).status_code == 200
    used = await database.fetchval("SELECT last_used_at FROM admin_tokens")
    assert used is not None
    await asyncio.sleep(0.05)
    await people.client.get("/admin/auth/me", headers=headers)
    assert await database.fetchval("SELECT last_used_at FROM admin_tokens") == used, "written once a minute"
    await database.execute("UPDATE admin_tokens SET expires_at = now() - interval '1 s'")

    async def refused() -> bool:
        return (await people.client.get("/admin/auth/me", headers=headers)).status_code == 401

    await eventually(refused, 6)  # the answer is remembered for three seconds
    assert (await browser("DELETE", f"/me/tokens/{made['id']}")).status_code == 204
    assert code(await browser("DELETE", f"/me/tokens/{made['id']}")) == (404, "token_not_found")
    assert code(await browser("DELETE", "/me/tokens/x")) == (404, "token_not_found")


async def test_nobody_touches_anothers_tokens_or_sessions(people: Any, sign_in: Any) -> None:
    (alice, _), (bob, _) = await sign_in(people, "alice", "admin"), await sign_in(people, "bob", "admin")
    token = (await alice("POST", "/me/tokens", json={"name": "t"})).json()
    session = (await alice("GET", "/auth/sessions")).json()["items"][0]
    assert code(await bob("DELETE", f"/me/tokens/{token['id']}")) == (404, "token_not_found")
    assert code(await bob("DELETE", f"/auth/sessions/{session['id']}")) == (404, "session_not_found")
    assert (await alice("GET", "/auth/me")).status_code == 200


async def test_the_first_administrator_is_made_once_by_the_root_token_alone(people: Any, sign_in: Any) -> None:
    answers = await asyncio.gather(
        *(people.client.post("/admin/bootstrap-owner", json={"username": f"owner{n}"}) for n in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    owner = next(answer for answer in answers if answer.status_code == 201).json()
    assert (owner["user"]["role"], owner["org"]["name"], len(owner["one_time_password"])) == ("admin", "default", 23)
    assert {code(answer) for answer in answers if answer.status_code == 409} == {(409, "owner_exists")}
    assert len((await people.client.get("/admin/users")).json()["items"]) == 1
    browser, _ = await sign_in(people, "alice", "admin")
    assert code(await browser("POST", "/bootstrap-owner", json={})) == (403, "root_token_required")
