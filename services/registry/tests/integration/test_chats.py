"""Conversations of the playground over HTTP on a real Postgres: each user's own, bounded, never lost to another browser."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from cortex_registry.domain.chats import MAX_BYTES, MAX_CHATS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

CHAT = {
    "title": "Lighthouses",
    "models": ["small"],
    "system": "Answer briefly.",
    "parameters": {"temperature": 0.2, "stop": ["END"]},
    "messages": [
        {"role": "user", "text": "How far does one shine?"},
        {"role": "assistant", "text": "About **20** miles.", "model": "small", "completion_tokens": 6, "ttft_ms": 12.5},
    ],
}


async def test_a_conversation_is_its_user_s_and_comes_back_as_it_was(people: Any, sign_in: Callable[..., Any]) -> None:
    alice, _ = await sign_in(people, "alice")
    bob, _ = await sign_in(people, "bob")
    path = f"/me/chats/{uuid4()}"
    assert (await alice("GET", path)).json()["code"] == "chat_not_found"
    made = await alice("PUT", path, json=CHAT)
    assert (made.status_code, made.headers["etag"], made.headers["cache-control"]) == (200, '"1"', "no-store")
    read = (await alice("GET", path)).json()
    assert read["title"] == CHAT["title"]
    assert read["content"]["messages"][1]["text"] == "About **20** miles."
    assert read["content"]["parameters"]["stop"] == ["END"]
    listed = (await alice("GET", "/me/chats")).json()
    assert [(one["title"], one["models"]) for one in listed["items"]] == [("Lighthouses", ["small"])]
    assert (await bob("GET", "/me/chats")).json()["items"] == []
    assert (await bob("GET", path)).status_code == 404
    assert (await bob("DELETE", path)).status_code == 404
    assert (await bob("PUT", path, json=CHAT | {"title": "Mine"})).status_code == 200  # another one with the same id
    assert (await alice("GET", path)).json()["title"] == "Lighthouses"
    assert (await alice("DELETE", path)).status_code == 204
    assert (await alice("DELETE", path)).status_code == 404
    assert (await bob("DELETE", "/me/chats")).status_code == 204
    assert (await bob("GET", "/me/chats")).json()["items"] == []


async def test_two_browsers_do_not_overwrite_each_other_unseen(people: Any, sign_in: Callable[..., Any]) -> None:
    alice, _ = await sign_in(people, "alice")
    path = f"/me/chats/{uuid4()}"
    assert (await alice("PUT", path, json=CHAT)).json()["version"] == 1
    assert (await alice("PUT", path, json=CHAT, headers={"If-Match": '"1"'})).json()["version"] == 2
    refused = await alice("PUT", path, json=CHAT, headers={"If-Match": '"1"'})
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert (await alice("PUT", path, json=CHAT)).json()["version"] == 3


async def test_their_number_and_size_are_bounded(
    people: Any, sign_in: Callable[..., Any], database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    alice, user = await sign_in(people, "alice")
    large = CHAT | {"messages": [{"role": "user", "text": "x" * (MAX_BYTES - 20)}] * 1}
    refused = await alice("PUT", f"/me/chats/{uuid4()}", json=large)
    assert (refused.status_code, refused.json()["code"]) == (422, "chat_too_large")
    await database.execute(
        "INSERT INTO chats (user_id, id, title, content, bytes)"
        " SELECT $1, gen_random_uuid(), 'old', '{}', 2 FROM generate_series(1, $2)",
        user["id"],
        MAX_CHATS - 1,
    )
    paths = [f"/me/chats/{uuid4()}" for _ in range(4)]
    answers = await asyncio.gather(*(alice("PUT", path, json=CHAT) for path in paths))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    made = next(path for path, answer in zip(paths, answers, strict=True) if answer.status_code == 200)
    assert (await alice("PUT", made, json=CHAT)).status_code == 200  # what there is can be changed
    assert len((await alice("GET", "/me/chats")).json()["items"]) == MAX_CHATS


async def test_conversations_go_with_their_user(
    people: Any, sign_in: Callable[..., Any], database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    alice, user = await sign_in(people, "alice")
    assert (await alice("PUT", f"/me/chats/{uuid4()}", json=CHAT)).status_code == 200
    assert (await people.client.delete(f"/admin/users/{user['id']}")).status_code == 204
    assert await database.fetchval("SELECT count(*) FROM chats") == 0


async def test_what_is_no_conversation_is_refused_field_by_field(people: Any, sign_in: Callable[..., Any]) -> None:
    alice, _ = await sign_in(people, "alice")
    wrong = CHAT | {"messages": [{"role": "wizard", "text": "x"}], "parameters": {"temperature": 9}}
    refused = await alice("PUT", f"/me/chats/{uuid4()}", json=wrong)
    assert refused.status_code == 422
    assert {error["field"] for error in refused.json()["errors"]} == {"messages.0.role", "parameters.temperature"}
    assert (await alice("PUT", "/me/chats/no-id", json=CHAT)).status_code == 422
    assert (await people.client.get("/admin/me/chats")).json()["code"] == "no_user"
