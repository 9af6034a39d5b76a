"""Upstreams over the API and from the environment, on a real Postgres and a real JetStream."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.operations import ProbeRequestV1, ProbeResultV1
from cortex_contracts.rpc import RpcReply
from cortex_contracts.subjects import RPC_HEALTH_PROBE
from cortex_kit.secrets import unseal

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PATH = "/admin/upstreams"
BODY = {
    "served_model_name": "team/qwen",
    "aliases": ["qwen"],
    "endpoints": [{"url": "http://10.0.0.5:8000/v1", "served_name": "theirs", "api_key": "their-key"}],
}


class Endpoint:
    """Somebody's server, as far as /v1/models goes."""

    def __init__(self) -> None:
        self.offered: list[str] = []
        self.asked = 0
        self.url = ""

    async def serve(self) -> AsyncIterator["Endpoint"]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = json.dumps({"object": "list", "data": [{"id": name} for name in self.offered]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async for made in Endpoint().serve():
        yield made


async def test_an_upstream_is_stored_published_changed_and_forgotten(
    registry: Any, database: Any, nc: Any, eventually: Any, secret_key: str
) -> None:
    created = await registry.client.post(PATH, json=BODY)
    assert created.status_code == 201, created.text
    assert created.headers["etag"] == '"1"'
    upstream = created.json()
    assert (upstream["endpoints"][0]["url"], upstream["endpoints"][0]["has_api_key"]) == ("http://10.0.0.5:8000", True)
    for text in (created.text, (await registry.client.get(f"{PATH}/qwen")).text):
        assert "their-key" not in text
        assert "sealed" not in text
    bucket = await nc.jetstream().key_value("models")

    async def published(version: int) -> ModelDocumentV1 | None:
        try:
            document = ModelDocumentV1.model_validate_json((await bucket.get(upstream["id"])).value)
        except Exception:  # noqa: BLE001 - not there yet
            return None
        return document if document.aggregateversion >= version else None

    document = await eventually(lambda: published(1))
    assert document.external[0].served_name == "theirs"
    assert unseal(SecretStr(secret_key), document.external[0].api_key_sealed) == "their-key"

    stale = await registry.client.patch(f"{PATH}/qwen", json={"enabled": False}, headers={"If-Match": '"7"'})
    assert (stale.status_code, stale.json()["code"], stale.json()["version"]) == (412, "precondition_failed", 1)
    changed = await registry.client.patch(
        f"{PATH}/team/qwen", json={"enabled": False}, headers={"If-Match": created.headers["etag"]}
    )
    assert (changed.status_code, changed.json()["state"], changed.headers["etag"]) == (200, "stopped", '"2"')
    shown = (await registry.client.get("/admin/models/qwen")).json()
    assert (shown["id"], shown["desired_state"]) == (upstream["id"], "stopped")
    assert (await registry.client.delete(f"{PATH}/qwen")).status_code == 204
    assert (await registry.client.get(f"{PATH}/qwen")).json()["code"] == "upstream_not_found"
    audit = await database.fetch("SELECT action, detail FROM audit WHERE action LIKE 'upstream.%' ORDER BY id")
    assert [row["action"] for row in audit] == ["upstream.create", "upstream.update", "upstream.delete"]
    assert "their-key" not in str([dict(row) for row in audit])


async def test_a_model_that_cortex_runs_is_no_upstream_to_change(registry: Any) -> None:
    await registry.client.post("/admin/models", json={"name": "own", "repo_id": "a/b"})
    for method in ("GET", "DELETE"):
        answer = await registry.client.request(method, f"{PATH}/own")
        assert (answer.status_code, answer.json()["code"]) == (404, "upstream_not_found")
    taken = await registry.client.post(PATH, json={**BODY, "served_model_name": "own"})
    assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")


async def test_scripts_of_old_register_list_and_remove(registry: Any) -> None:
    old = "/admin/models/registry"
    entry = {"served_name": "old-one", "url": "http://10.0.0.6:8000/v1", "task": "embed"}
    assert (await registry.client.post(old, json=entry)).json() == {"status": "ok"}
    assert (await registry.client.post(old, json={**entry, "url": "http://10.0.0.7:8000"})).json() == {"status": "ok"}
    assert (await registry.client.get(old)).json() == {"old-one": {"url": "http://10.0.0.7:8000", "task": "embed"}}
    assert (await registry.client.delete(f"{old}/old-one")).json() == {"status": "ok"}
    assert (await registry.client.get(old)).json() == {}


async def test_health_is_asked_to_probe_now(registry: Any, nc: Any) -> None:
    away = await registry.client.post(f"{PATH}/refresh-health")
    assert (away.status_code, away.json()["code"]) == (503, "health_unavailable")
    created = (await registry.client.post(PATH, json=BODY)).json()
    asked: list[ProbeRequestV1] = []

    async def answer(message: Any) -> None:
        asked.append(ProbeRequestV1.model_validate_json(message.data))
        reply = RpcReply[ProbeResultV1](result=ProbeResultV1(replicas=(f"{created['id']}-0",)))  # type: ignore[arg-type]
        await message.respond(reply.model_dump_json().encode())

    await nc.subscribe(RPC_HEALTH_PROBE, cb=answer)
    await nc.flush()
    done = await registry.client.post(f"{PATH}/refresh-health", json={"model": "qwen"})
    assert done.json() == {"replicas": [f"{created['id']}-0"]}
    assert [request.model_id for request in asked] == [created["id"]]


async def test_endpoints_of_the_environment_are_found_registered_once_and_never_taken_away(
    start_registry: Any, endpoint: Endpoint, eventually: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"llamacpp_gen_urls": f"{endpoint.url}/v1", "vllm_emb_urls": "http://u:secret@h, http://169.254.169.254"}
    async with start_registry(**settings) as registry:
        await registry.ready()
        await eventually(lambda: endpoint.asked >= 1, 20)
        assert (await registry.client.get(PATH)).json()["items"] == [], "an endpoint that offers nothing is asked again"
        endpoint.offered = ["/models/smol.gguf", "second"]

        async def found() -> Any:
            return len((await registry.client.get("/admin/models/registry")).json()) == 2

        await eventually(found, 30)
        shown = (await registry.client.get(f"{PATH}/smol.gguf")).json()
        assert (shown["engine_type"], shown["task"], shown["enabled"]) == ("llamacpp", "generate", True)
        assert [(one["url"], one["served_name"]) for one in shown["endpoints"]] == [(endpoint.url, "/models/smol.gguf")]
    printed = capsys.readouterr().out
    assert printed.count("upstream_url_refused") == 2
    assert "secret@" not in printed
    async with start_registry(**settings) as registry:
        await registry.ready()
        asked = endpoint.asked
        await eventually(lambda: endpoint.asked > asked, 20)
        await asyncio.sleep(0.3)
        assert {model["version"] for model in (await registry.client.get("/admin/models")).json()["items"]} == {1}
    async with start_registry() as registry:
        await registry.ready()
        reported = ""

        def orphans() -> bool:
            nonlocal reported
            reported += capsys.readouterr().out
            return reported.count("upstream_not_in_environment") == 2

        await eventually(orphans, 20)
        assert len((await registry.client.get("/admin/models/registry")).json()) == 2


async def test_the_overview_counts_what_is_there(registry: Any) -> None:
    await registry.client.post(PATH, json=BODY)
    summary = (await registry.client.get("/admin/system/summary")).json()
    assert (summary["models"], summary["upstreams"]) == ({"loading": 1}, {"unprobed": 1})
    assert summary["resources"]["hosts"] == 0
    throughput = (await registry.client.get("/admin/system/throughput", params={"window_s": 60})).json()
    assert (throughput["window_s"], throughput["total"]["requests"], throughput["models"]) == (60, 0, {})
    for path in ("gpus", "host/summary"):
        assert (await registry.client.get(f"/admin/system/{path}")).json() == {"items": []}
