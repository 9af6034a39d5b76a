"""Why, from real revisions, audit entries and events."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client

from cortex_kit.ids import uuid7

pytestmark = pytest.mark.integration


async def publish(nc: Client, topic: str, correlation: str | None, cause: str | None, data: dict[str, Any]) -> str:
    event_id = uuid7()
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": "cortex/orchestrator/test",
        "type": f"{topic}.v1",
        "subject": "s",
        "time": datetime.now(UTC).isoformat(),
        "data": data,
        "correlationid": correlation,
        "causationid": cause,
    }
    await nc.jetstream().publish(topic, json.dumps(envelope).encode())
    return event_id


async def test_the_answer_names_who_asked_and_what_followed(
    registry: Any, nc: Client, put_replica: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    client = registry.client
    model = (
        await client.post("/admin/models", json={"name": "m", "served_model_name": "org/m", "repo_id": "a/b"})
    ).json()
    path = "/admin/models/org/m/why"
    never = (await client.get(path)).json()
    assert never["headline"].startswith("org/m has not been asked to run. admin created it at")
    assert never["next_step"] == "Start it: cortex model start org/m."
    await client.post("/admin/models/org/m/start", headers={"X-Request-Id": "the-request"})
    replica = {"model_id": model["id"], "replica_id": f"{model['id']}-0", "ordinal": 0, "node": "n", "container": "c"}

    async def started_event() -> Any:
        found = (
            await client.get("/admin/events", params={"correlation": "the-request", "type": "model.updated"})
        ).json()
        return found["items"]

    asked = (await eventually(started_event))[0]["id"]
    created = await publish(nc, "container.created", "the-request", asked, replica)
    started = await publish(nc, "container.started", "the-request", created, replica)
    await publish(nc, "upstream.suspected", None, None, replica | {"reason": "refused"})
    diagnosis = {"code": "oom", "message": "Too little memory.", "fix": "Lower context_size."}
    failed = {"reason": "exit code 1", "exit_code": 1, "diagnosis": diagnosis, "log_tail": ["a", "b"]}
    last = await publish(nc, "container.failed", "the-request", started, replica | failed)
    await put_replica(model["id"], "failed")

    async def complete() -> Any:
        answer = (await client.get(path)).json()
        return answer if answer["state"] == "failed" and last in json.dumps(answer) else None

    answer = await eventually(complete)
    assert answer["headline"].startswith("org/m failed: Too little memory. admin asked it to run at")
    assert answer["next_step"] == "Lower context_size."
    assert answer["version"] == 2
    root = answer["root"]
    assert root["details"]["request_id"] == "the-request"
    assert root["details"]["address"]
    assert root["event_id"] == asked
    lane = [node["type"] for node in root["children"] if node["kind"] == "container"]
    assert lane == ["container.created.v1", "container.started.v1", "container.failed.v1"]
    below = next(node for node in root["children"] if node["event_id"] == started)["children"]
    assert [node["type"] for node in below] == ["upstream.suspected.v1"]

    await client.patch("/admin/models/org/m", json={"name": "renamed"})
    answer = (await client.get(path)).json()
    assert (answer["version"], [node["details"]["version"] for node in answer["later"]]) == (2, [3])
    first = (await client.get(path, params={"version": 1})).json()
    assert first["headline"].startswith("admin created it at")
    assert (await client.get(path, params={"version": 99})).json()["code"] == "revision_not_found"
    assert (await client.get("/admin/models/nope/why")).json()["code"] == "model_not_found"
    assert (await client.get(path, params={"limit": 1})).status_code == 422
    await client.post("/admin/models/org/m/stop")
    answer = (await client.get(path)).json()
    assert answer["root"]["sentence"] == "admin asked it to stop."


async def test_a_long_history_is_cut_in_its_middle(registry: Any, nc: Client, eventually: Callable[..., Any]) -> None:
    client = registry.client
    model = (await client.post("/admin/models", json={"name": "m", "repo_id": "a/b"})).json()
    await client.post("/admin/models/m/start", headers={"X-Request-Id": "r"})
    data = {"model_id": model["id"], "replica_id": f"{model['id']}-0", "ordinal": 0, "reason": "again"}
    await asyncio.gather(*(publish(nc, "container.failed", "r", None, data) for _ in range(60)))

    async def complete() -> Any:
        answer = (await client.get("/admin/models/m/why", params={"limit": 20})).json()
        return answer if answer["omitted"] >= 40 else None

    answer = await eventually(complete)
    assert len(answer["root"]["children"]) <= 20


async def test_a_change_of_state_names_what_it_follows_from(
    registry: Any, put_replica: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    client = registry.client
    model = (await client.post("/admin/models", json={"name": "m", "repo_id": "a/b"})).json()
    await client.post("/admin/models/m/start", headers={"X-Request-Id": "start-it"})

    async def changed() -> Any:
        query = {"type": "model.state_changed", "correlation": "start-it"}
        return (await client.get("/admin/events", params=query)).json()["items"]

    (told,) = await eventually(changed)
    assert told["data"]["state"] == "starting"
    updated = (await client.get("/admin/events", params={"type": "model.updated", "model": model["id"]})).json()[
        "items"
    ]
    assert told["causationid"] == updated[0]["id"]
