"""The layer that carries a create out once: what is kept, repeated, refused and forgotten."""

from collections.abc import AsyncIterator, Iterator
from itertools import count

import httpx
import pytest
from fastapi import Response
from pydantic import SecretStr

from cortex_contracts.rights import Right
from cortex_kit.errors import DomainError
from cortex_registry.adapters.claims import Claim
from cortex_registry.adapters.idempotency import Answer, Earlier
from cortex_registry.entrypoints.access import Routes
from cortex_registry.entrypoints.guards import RootToken
from cortex_registry.entrypoints.http import create_app
from cortex_registry.errors import DatabaseUnavailableError

TOKEN = "token-of-the-administrator"


class MemoryStore:
    """Store without a database."""

    renew_every_s = 3600.0

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], Earlier] = {}
        self.away = False

    async def claim(self, actor: str, key: str, digest: str) -> Claim | Earlier:
        if self.away:
            raise DatabaseUnavailableError("test")
        found = self.entries.get((actor, key))
        if found is not None:
            return found
        self.entries[actor, key] = Earlier(digest, None)
        return Claim(actor, key, "claim")

    async def renew(self, claim: Claim) -> None: ...

    async def keep(self, claim: Claim, answer: Answer) -> None:
        self.entries[claim.actor, claim.key] = Earlier(self.entries[claim.actor, claim.key].digest, answer)

    async def release(self, claim: Claim) -> None:
        del self.entries[claim.actor, claim.key]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def numbers() -> Iterator[int]:
    return iter(count(1))


@pytest.fixture
async def client(store: MemoryStore, numbers: Iterator[int]) -> AsyncIterator[httpx.AsyncClient]:
    async def create(body: dict[str, str], response: Response) -> dict[str, int]:
        response.headers["Location"] = "/admin/things/1"
        response.headers["ETag"] = '"1"'
        return {"number": next(numbers)}

    async def refuse(body: dict[str, str]) -> None:
        raise DomainError("name_taken", f"Refused for the {next(numbers)}. time.", status=409)

    async def long() -> Response:
        return Response(b"x" * (1024 * 1024 + 1), 201)

    routes = Routes("test")
    routes.add("POST", "/things", create, Right.MODELS_WRITE, status_code=201)
    routes.add("POST", "/auth/login", create, Right.MODELS_WRITE, status_code=201)
    routes.add("POST", "/refused", refuse, Right.MODELS_WRITE, status_code=201)
    routes.add("POST", "/long", long, Right.MODELS_WRITE, status_code=201)
    app = create_app(
        [routes.router],
        readiness={},
        authenticators=[RootToken(SecretStr(TOKEN))],
        max_body_bytes=2000,
        idempotency=store,
    )
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "one"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as made:
        yield made


async def test_a_repeated_create_is_answered_again_and_not_carried_out(client: httpx.AsyncClient) -> None:
    first = await client.post("/admin/things", json={"a": "b"})
    again = await client.post("/admin/things", json={"a": "b"})
    assert (first.status_code, first.json()) == (201, {"number": 1})
    assert (again.status_code, again.content) == (201, first.content)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    for header in ("location", "etag", "content-type"):
        assert again.headers[header] == first.headers[header]
    other = await client.post("/admin/things", json={"a": "b"}, headers={"Idempotency-Key": "two"})
    assert other.json() == {"number": 2}


async def test_a_key_stands_for_one_request(client: httpx.AsyncClient) -> None:
    await client.post("/admin/things", json={"a": "b"})
    for path, body in (
        ("/admin/things", {"a": "c"}),
        ("/admin/things?x=1", {"a": "b"}),
        ("/admin/refused", {"a": "b"}),
    ):
        answer = await client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_refused_create_leaves_its_key_free(client: httpx.AsyncClient, store: MemoryStore) -> None:
    answers = [await client.post("/admin/refused", json={}) for _ in range(2)]
    assert [answer.json()["detail"] for answer in answers] == ["Refused for the 1. time.", "Refused for the 2. time."]
    assert store.entries == {}


async def test_a_create_that_is_still_being_answered_is_not_begun_again(
    client: httpx.AsyncClient, store: MemoryStore
) -> None:
    await client.post("/admin/things", json={})
    ((place, entry),) = store.entries.items()
    store.entries[place] = Earlier(entry.digest, None)
    answer = await client.post("/admin/things", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_in_progress")
    assert int(answer.headers["retry-after"]) > 0


async def test_an_answer_too_long_to_be_kept_is_not_made_up(client: httpx.AsyncClient) -> None:
    assert len((await client.post("/admin/long")).content) > 1024 * 1024
    again = await client.post("/admin/long")
    assert (again.status_code, again.json()["code"]) == (409, "idempotent_answer_not_kept")


async def test_signing_in_is_never_repeated_from_the_store(client: httpx.AsyncClient) -> None:
    answers = [await client.post("/admin/auth/login", json={}) for _ in range(2)]
    assert [answer.json()["number"] for answer in answers] == [1, 2]


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, "ä"])
async def test_a_malformed_key_is_refused(client: httpx.AsyncClient, key: str) -> None:
    answer = await client.post("/admin/things", json={}, headers={"Idempotency-Key": key.encode("latin-1")})  # type: ignore[dict-item]
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")


async def test_without_the_store_nothing_is_carried_out(
    client: httpx.AsyncClient, store: MemoryStore, numbers: Iterator[int]
) -> None:
    store.away = True
    answer = await client.post("/admin/things", json={})
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert next(numbers) == 1
