"""Webhooks against a real HTTP receiver: at least once, in order, signed, whatever goes away."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client

from cortex_kit.ids import uuid7
from cortex_testing.servers import NatsServer, free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]
Start = Callable[..., AbstractAsyncContextManager[Any]]


@dataclass
class Got:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class Receiver:
    """An HTTP server as plain as can be, that can be told to fail."""

    port: int = field(default_factory=free_port)
    got: list[Got] = field(default_factory=list)
    status: int = 204
    extra: str = ""
    hang: bool = False
    answer_body: bytes = b""
    server: asyncio.Server | None = None
    running: int = 0
    most: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=of-the-receiver"

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None

    def ids(self, topic: str = "") -> list[str]:
        return [one.id for one in self.got if one.event["type"].startswith(topic)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *rest = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.running += 1
            self.most = max(self.most, self.running)
            self.got.append(Got(first.split(" ")[1], headers, body))
            if self.hang:
                await asyncio.sleep(60)
            await asyncio.sleep(0.005)
            length = "" if self.status == 204 else f"Content-Length: {len(self.answer_body)}\r\n"
            writer.write(
                f"HTTP/1.1 {self.status} X\r\n{length}{self.extra}Connection: close\r\n\r\n".encode() + self.answer_body
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.running -= 1
            writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    running = Receiver()
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def other() -> AsyncIterator[Receiver]:
    running = Receiver()
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def registry(start_registry: Start) -> AsyncIterator[Any]:
    async with start_registry(webhooks_retry_base_s=0.05, webhooks_timeout_s=1.0) as running:
        await running.ready()
        yield running


async def publish(nc: Client, topic: str = "node.updated") -> str:
    event_id = uuid7()
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": "cortex/orchestrator/test",
        "type": f"{topic}.v1",
        "subject": "s",
        "time": datetime.now(UTC).isoformat(),
        "data": {"text": "ä\u2028 ", "number": 1.5},
    }
    await nc.jetstream().publish(topic, json.dumps(envelope).encode())
    return event_id


async def make(registry: Any, receiver: Receiver, **fields: Any) -> dict[str, Any]:
    body = {"name": "hook", "url": receiver.url, "events": ["node.*"]} | fields
    answer = await registry.client.post("/admin/webhooks", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def deliveries(registry: Any, webhook: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    answer = await registry.client.get(f"/admin/webhooks/{webhook['id']}/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def verified(secret: str, got: Got) -> bool:
    """Written from the specification, without a line of ours."""
    key = base64.b64decode(secret[len("whsec_") :])
    content = got.headers["webhook-id"].encode() + b"." + got.headers["webhook-timestamp"].encode() + b"." + got.body
    digest = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return f"v1,{digest}" in got.headers["webhook-signature"].split(" ")


async def test_events_arrive_signed_in_order_and_only_those_that_are_wanted(
    registry: Any, receiver: Receiver, nc: Client, eventually: Callable[..., Any]
) -> None:
    before = await publish(nc)
    await eventually(lambda: _logged(registry, before))
    webhook = await make(registry, receiver)
    assert webhook["secret"].startswith("whsec_")
    sent: list[str] = []
    for _ in range(10):
        sent.append(await publish(nc))
        await publish(nc, "gguf.inspected")
        await asyncio.sleep(0.01)
    await eventually(lambda: len(receiver.got) >= 10)
    await asyncio.sleep(0.3)
    assert sorted(receiver.ids()) == sorted(sent), "neither those before it was made nor other types"
    for got in receiver.got:
        assert verified(webhook["secret"], got)
        assert got.headers["content-type"] == "application/json"
        assert got.headers["user-agent"].startswith("cortex")
        assert got.event["id"] == got.id
        assert abs(int(got.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
    listed = await deliveries(registry, webhook)
    assert {item["status"] for item in listed} == {"delivered"}
    one = (await registry.client.get(f"/admin/webhooks/{webhook['id']}/deliveries/{listed[0]['id']}")).json()
    assert [(entry["status"], entry["error"]) for entry in one["log"]] == [(204, None)]
    shown = (await registry.client.get(f"/admin/webhooks/{webhook['id']}")).json()
    assert "secret" not in shown
    assert webhook["secret"] not in json.dumps(shown)


async def _logged(registry: Any, event_id: str) -> bool:
    items = (await registry.client.get("/admin/events", params={"limit": 1000})).json()["items"]
    return event_id in {item["id"] for item in items}


async def test_a_receiver_that_was_down_gets_everything_and_others_notice_nothing(
    registry: Any, receiver: Receiver, other: Receiver, nc: Client, eventually: Callable[..., Any]
) -> None:
    down, up = await make(registry, receiver, name="down"), await make(registry, other, name="up")
    await receiver.stop()
    sent = [await publish(nc) for _ in range(20)]
    await eventually(lambda: len(other.got) == 20)

    async def paused() -> bool:
        answer = (await registry.client.get(f"/admin/webhooks/{down['id']}")).json()
        return answer["failures"] > 2 and answer["paused_until"] and "connection" in (answer["last_error"] or "")

    await eventually(paused)
    await receiver.start()
    await eventually(lambda: set(receiver.ids()) == set(sent), 30)
    healthy = (await registry.client.get(f"/admin/webhooks/{down['id']}")).json()
    assert (healthy["failing_since"], healthy["paused_until"], healthy["failures"]) == (None, None, 0)
    assert {item["status"] for item in await deliveries(registry, up)} == {"delivered"}


async def test_an_event_that_the_receiver_refuses_holds_no_other_up_and_is_given_up_in_the_end(
    registry: Any, receiver: Receiver, nc: Client, database: Any, eventually: Callable[..., Any]
) -> None:
    webhook = await make(registry, receiver)
    receiver.status = 500
    refused = await publish(nc)
    await eventually(lambda: len(receiver.got) >= 2)
    receiver.status = 200
    good = await publish(nc)
    await eventually(lambda: good in receiver.ids())
    receiver.status = 500
    last = await publish(nc)
    await eventually(lambda: last in receiver.ids())
    await database.execute(
        "UPDATE webhook_deliveries SET attempts = 10, next_attempt_at = now() WHERE status = 'pending'"
    )

    async def given_up() -> bool:
        return last in {item["event_id"] for item in await deliveries(registry, webhook, status="failed")}

    await eventually(given_up)
    log = (await deliveries(registry, webhook, status="failed"))[0]
    assert (log["last_status"], log["last_error"]) == (500, "HTTP 500")
    assert refused in receiver.ids()


async def test_a_redirect_is_a_failure_and_a_long_answer_and_a_slow_one_end(
    registry: Any, receiver: Receiver, other: Receiver, eventually: Callable[..., Any]
) -> None:
    webhook = await make(registry, receiver)
    test = f"/admin/webhooks/{webhook['id']}/test"
    receiver.status, receiver.extra = 302, f"Location: {other.url}\r\n"
    answer = (await registry.client.post(test)).json()
    assert (answer["delivered"], answer["status"]) == (False, 302)
    assert "redirects" in answer["error"]
    assert other.got == []
    receiver.status, receiver.extra, receiver.answer_body = 200, "", b"x" * 3_000_000
    answer = (await registry.client.post(test)).json()
    assert (answer["delivered"], answer["status"]) == (True, 200)
    receiver.hang = True
    answer = (await registry.client.post(test)).json()
    assert (answer["delivered"], answer["status"], answer["error"]) == (False, None, "no answer within 1 s")
    receiver.hang = False
    await receiver.stop()
    answer = (await registry.client.post(test)).json()
    assert answer["error"].startswith("no connection")
    kinds = [(item["kind"], item["status"]) for item in await deliveries(registry, webhook)]
    assert kinds == [("test", "failed"), ("test", "failed"), ("test", "delivered"), ("test", "failed")]
    sent = receiver.got[0]
    assert sent.event["type"] == "webhook.test.v1"
    assert verified(webhook["secret"], sent)
    again = await registry.client.post(f"/admin/webhooks/{webhook['id']}/deliveries/1/redeliver")
    assert (again.status_code, again.json()["code"]) == (409, "not_an_event")


async def test_both_secrets_sign_while_one_is_rotated(
    registry: Any, receiver: Receiver, nc: Client, database: Any, eventually: Callable[..., Any]
) -> None:
    webhook = await make(registry, receiver)
    rotated = (
        await registry.client.post(f"/admin/webhooks/{webhook['id']}/rotate-secret", json={"overlap_s": 60})
    ).json()
    assert rotated["secret"] != webhook["secret"]
    await publish(nc)
    await eventually(lambda: len(receiver.got) == 1)
    assert verified(webhook["secret"], receiver.got[0])
    assert verified(rotated["secret"], receiver.got[0])
    await registry.client.post(f"/admin/webhooks/{webhook['id']}/rotate-secret", json={"overlap_s": 0})
    await publish(nc)
    await eventually(lambda: len(receiver.got) == 2)
    assert not verified(rotated["secret"], receiver.got[1])
    stored = str([dict(row) for row in await database.fetch("SELECT * FROM webhooks")])
    written = str([dict(row) for row in await database.fetch("SELECT * FROM audit")])
    for secret in (webhook["secret"], rotated["secret"]):
        assert secret not in stored + written
    assert "of-the-receiver" not in written


async def test_a_crash_between_sending_and_marking_sends_again_under_the_same_id(
    start_registry: Start, receiver: Receiver, nc: Client, database: Any, eventually: Callable[..., Any]
) -> None:
    receiver.hang = True
    async with start_registry(webhooks_timeout_s=30) as first:
        await first.ready()
        await make(first, receiver)
        sent = await publish(nc)
        await eventually(lambda: len(receiver.got) == 1)
        await first.kill()  # the request is out, nothing is marked
    receiver.hang = False
    row = await database.fetchrow("SELECT status, attempts, next_attempt_at > now() AS leased FROM webhook_deliveries")
    assert dict(row) == {"status": "pending", "attempts": 0, "leased": True}
    await database.execute("UPDATE webhook_deliveries SET next_attempt_at = now()")  # the lease ends
    async with start_registry() as second:
        await second.ready()
        await eventually(lambda: len(receiver.got) == 2)
        assert receiver.ids() == [sent, sent]

        async def delivered() -> bool:
            return await database.fetchval("SELECT status FROM webhook_deliveries") == "delivered"

        await eventually(delivered)


async def test_of_two_registries_one_delivers_and_the_other_takes_over(
    start_registry: Start, receiver: Receiver, nc: Client, database: Any, eventually: Callable[..., Any]
) -> None:
    async with start_registry(webhooks_concurrency=1) as first, start_registry(webhooks_concurrency=1) as second:
        await first.ready()
        await second.ready()
        await make(second, receiver)
        for _ in range(60):
            await publish(nc)
        await eventually(lambda: len(receiver.got) >= 60, 30)
        await asyncio.sleep(0.5)
        ids = receiver.ids()
        assert len(ids) == len(set(ids)) == 60, "nobody else delivers"
        sequences = [int(got.event["sequence"]) for got in receiver.got]
        assert sequences == sorted(sequences), "one at a time keeps the order"
        assert receiver.most == 1
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = $1 AND objid = $2"
        assert await database.fetchval(locks, 0x436F7274, 0x77656268) == 1
        await first.kill()
        more = [await publish(nc) for _ in range(20)]
        await eventually(lambda: set(more) <= set(receiver.ids()), 30)


async def test_a_webhook_that_fails_for_days_is_switched_off_and_says_why(
    registry: Any, receiver: Receiver, nc: Client, database: Any, eventually: Callable[..., Any]
) -> None:
    webhook = await make(registry, receiver)
    receiver.status = 500
    await publish(nc)
    await eventually(lambda: len(receiver.got) >= 1)
    await database.execute("UPDATE webhook_state SET failing_since = now() - interval '6 days'")

    async def off() -> bool:
        return not (await registry.client.get(f"/admin/webhooks/{webhook['id']}")).json()["enabled"]

    await eventually(off)
    shown = (await registry.client.get(f"/admin/webhooks/{webhook['id']}")).json()
    assert "5 days" in shown["disabled_reason"]
    assert shown["pending"] == 0

    async def told() -> bool:
        items = (await registry.client.get("/admin/events", params={"type": "webhook.disabled"})).json()["items"]
        return [item["data"]["reason"] for item in items] == [shown["disabled_reason"]]

    await eventually(told)
    missed = await publish(nc)
    await eventually(lambda: _logged(registry, missed))
    receiver.status = 200
    on = await registry.client.patch(f"/admin/webhooks/{webhook['id']}", json={"enabled": True})
    assert (on.json()["enabled"], on.json()["disabled_reason"]) == (True, None)
    fresh = await publish(nc)
    await eventually(lambda: fresh in receiver.ids())
    assert missed not in receiver.ids()
    head = (await registry.client.get("/admin/events", params={"limit": 1})).json()["head"]
    failed_only = {"after": 0, "until": head, "only_failed": True}
    queued = await registry.client.post(f"/admin/webhooks/{webhook['id']}/redeliver", json=failed_only)
    assert (queued.status_code, queued.json()) == (202, {"queued": 1})
    queued = await registry.client.post(f"/admin/webhooks/{webhook['id']}/redeliver", json={"after": 0, "until": head})
    assert queued.json()["queued"] == 3
    await eventually(lambda: missed in receiver.ids())


async def test_gone_switches_a_webhook_off_at_once(
    registry: Any, receiver: Receiver, nc: Client, eventually: Callable[..., Any]
) -> None:
    webhook = await make(registry, receiver)
    receiver.status = 410
    await publish(nc)

    async def off() -> bool:
        return "410" in (
            (await registry.client.get(f"/admin/webhooks/{webhook['id']}")).json()["disabled_reason"] or ""
        )

    await eventually(off)
    listed = await deliveries(registry, webhook)
    again = await registry.client.post(f"/admin/webhooks/{webhook['id']}/deliveries/{listed[0]['id']}/redeliver")
    assert (again.status_code, again.json()["code"]) == (409, "webhook_disabled")


async def test_a_webhook_is_changed_as_everything_else(
    registry: Any, receiver: Receiver, nc: Client, eventually: Callable[..., Any]
) -> None:
    client = registry.client
    webhook = await make(registry, receiver)
    one = f"/admin/webhooks/{webhook['id']}"
    etag = (await client.get(one)).headers["etag"]
    assert (await client.patch(one, json={"name": "new"}, headers={"If-Match": etag})).json()["version"] == 2
    lost = await client.patch(one, json={"name": "other"}, headers={"If-Match": etag})
    assert (lost.status_code, lost.json()["code"]) == (412, "precondition_failed")
    assert (await client.patch(one, json={"name": "new"})).json()["version"] == 2, "no change, no version"
    second = await make(registry, receiver, name="second", enabled=False)
    page = (await client.get("/admin/webhooks", params={"limit": 1})).json()
    assert [item["id"] for item in page["items"]] == [webhook["id"]]
    page = (await client.get("/admin/webhooks", params={"limit": 1, "after": page["next"]})).json()
    assert [item["id"] for item in page["items"]] == [second["id"]]
    await publish(nc)
    await eventually(lambda: len(receiver.got) == 1)
    listed = await deliveries(registry, webhook)
    again = await client.post(f"{one}/deliveries/{listed[0]['id']}/redeliver")
    assert (again.status_code, again.json()["kind"]) == (202, "redelivery")
    await eventually(lambda: len(receiver.got) == 2)
    assert len(set(receiver.ids())) == 1
    assert (await client.delete(one)).status_code == 204
    for answer in (await client.get(one), await client.delete(one), await client.post(f"{one}/test")):
        assert (answer.status_code, answer.json()["code"]) == (404, "webhook_not_found")


BAD = (
    ("POST", "", {"name": "n"}, 422),
    ("POST", "", {"name": "n", "url": "http://u:p@h/"}, 422),
    ("POST", "", {"name": "n", "url": "gopher://h/"}, 422),
    ("POST", "", {"name": "n", "url": "http://h/", "events": ["a b"]}, 422),
    ("POST", "", {"name": "n", "url": "http://h/", "secret": "mine"}, 422),
    ("GET", "/nonsense", None, 404),
    ("PATCH", "/nonsense", {}, 404),
    ("GET", "/01a20000-0000-7000-8000-000000000000/deliveries", None, 404),
    ("GET", "?after=nonsense", None, 422),
    ("POST", "/01a20000-0000-7000-8000-000000000000/redeliver", {"after": 5, "until": 5}, 422),
    ("POST", "/01a20000-0000-7000-8000-000000000000/redeliver", {"after": -1, "until": 5}, 422),
    ("POST", "/01a20000-0000-7000-8000-000000000000/rotate-secret", {"overlap_s": -1}, 422),
    ("POST", "/01a20000-0000-7000-8000-000000000000/rotate-secret", {"overlap_s": "60"}, 422),
    ("POST", "/01a20000-0000-7000-8000-000000000000/redeliver", {"after": False, "until": 5}, 422),
)


async def test_bad_input_is_refused_and_changes_nothing(registry: Any, database: Any) -> None:
    for method, path, body, status in BAD:
        answer = await registry.client.request(method, f"/admin/webhooks{path}", json=body)
        assert answer.status_code == status, (method, path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
    assert await database.fetchval("SELECT count(*) FROM webhooks") == 0
    assert await database.fetchval("SELECT count(*) FROM audit WHERE action LIKE 'webhook.%'") == 0


async def test_private_addresses_can_be_forbidden(start_registry: Start, receiver: Receiver) -> None:
    async with start_registry(webhooks_allow_private=False) as registry:
        await registry.ready()
        webhook = await make(registry, receiver, url=f"http://localhost:{receiver.port}/")
        answer = (await registry.client.post(f"/admin/webhooks/{webhook['id']}/test")).json()
        assert answer["delivered"] is False
        assert "private address" in answer["error"]
        assert receiver.got == []


async def test_a_wiped_store_delivers_nothing_twice(
    registry: Any, receiver: Receiver, nc: Client, nats_server: NatsServer, eventually: Callable[..., Any]
) -> None:
    await make(registry, receiver)
    first = await publish(nc)
    await eventually(lambda: receiver.ids() == [first])
    await asyncio.to_thread(nats_server.stop)
    nats_server.wipe()
    await asyncio.to_thread(nats_server.start)
    await registry.ready(30)
    second = await publish(nc)
    await eventually(lambda: receiver.ids() == [first, second])
