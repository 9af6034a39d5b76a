"""The audit log over HTTP."""

import csv
import io
import json
from typing import Any

import pytest

pytestmark = pytest.mark.integration


async def test_who_did_what_from_where_is_found_paged_and_exported(registry: Any, database: Any) -> None:
    client = registry.client
    for number in range(3):
        made = await client.post("/admin/webhooks", json={"name": f"=hook{number}", "url": "http://h/?key=s3cret"})
        assert made.status_code == 201
    one = made.json()["id"]
    changed = await client.patch(f"/admin/webhooks/{one}", json={"name": "new"}, headers={"X-Request-Id": "mine"})
    assert changed.status_code == 200
    await client.delete(f"/admin/webhooks/{one}")

    async def found(**query: Any) -> list[dict[str, Any]]:
        answer = await client.get("/admin/audit", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()["items"]

    (entry,) = await found(request_id="mine")
    assert (entry["actor"], entry["action"], entry["subject"]) == ("admin", "webhook.update", f"webhook/{one}")
    assert (entry["before"], entry["after"], entry["changed"]) == ({"name": "=hook2"}, {"name": "new"}, ["name"])
    assert entry["address"]
    assert len(await found(action="webhook.create")) == 3
    assert len(await found(action="webhook.*", subject=f"webhook/{one}")) == 3
    assert len(await found(subject="webhook/*", actor="admin")) == 5
    assert await found(actor="nobody") == []
    assert await found(action="webhook_create") == []
    assert await found(until="2020-01-01T00:00:00Z") == []
    assert len(await found(since="2020-01-01T00:00:00Z")) == 5
    first = (await client.get("/admin/audit", params={"limit": 3})).json()
    rest = (await client.get("/admin/audit", params={"limit": 3, "after": first["next"]})).json()
    ids = [item["id"] for item in (*first["items"], *rest["items"])]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 5
    assert rest["next"] is None

    exported = await client.get("/admin/audit/export", params={"format": "csv", "action": "webhook.create"})
    assert exported.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(exported.text, newline="")))
    assert [json.loads(row["after"])["name"] for row in rows] == ["=hook0", "=hook1", "=hook2"]
    assert "s3cret" not in exported.text
    lines = (await client.get("/admin/audit/export", params={"format": "jsonl"})).text.splitlines()
    assert [json.loads(line)["action"] for line in lines][-1] == "webhook.delete"
    assert (await client.get("/admin/audit/export?format=xml")).status_code == 422
    assert (await client.get("/admin/audit?after=x")).status_code == 422

    await database.execute(
        "INSERT INTO audit (actor, action, subject) SELECT 'many', 'x.y', 's/' || n FROM generate_series(1, 2500) n"
    )
    exported = await client.get("/admin/audit/export", params={"format": "jsonl", "actor": "many"})
    assert [json.loads(line)["subject"] for line in exported.text.splitlines()] == [f"s/{n}" for n in range(1, 2501)]
