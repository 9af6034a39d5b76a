"""Capabilities, engine images and trends, asked of a real registry."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from nats.aio.msg import Msg

from cortex_contracts.base import NodeId
from cortex_contracts.documents import NodeDocumentV1
from cortex_contracts.enums import EngineType, RuntimeKind
from cortex_contracts.images import EngineImageV1, ImagesRequestV1, ImagesResultV1
from cortex_contracts.rpc import RpcReply
from cortex_contracts.subjects import rpc_images

pytestmark = pytest.mark.integration


async def put_node(nc: Any, name: str, **fields: Any) -> None:
    node = NodeDocumentV1(
        aggregateversion=1,
        id=NodeId(name),
        hostname=name,
        runtime=RuntimeKind.DOCKER,
        cpu_count=4,
        memory_total=100,
        memory_available=60,
        **fields,
    )
    await (await nc.jetstream().key_value("nodes")).put(name, node.model_dump_json().encode())


async def test_what_a_node_has_is_shown_and_a_silent_one_says_so(
    registry: Any, nc: Any, inspector: Any, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cortex_registry.adapters.images.TIMEOUT_S", 1.0)
    asked: list[tuple[str, ...]] = []

    async def answer(message: Msg) -> None:
        asked.append(ImagesRequestV1.model_validate_json(message.data).references)
        image = EngineImageV1(reference="e:1", present=True, default_of=EngineType.VLLM, size=5)
        result = ImagesResultV1(node=NodeId("a"), images=(image,))
        await message.respond(RpcReply[ImagesResultV1](result=result).model_dump_json().encode())

    await nc.subscribe(rpc_images(NodeId("a")), cb=answer)
    for name in ("a", "silent"):
        await put_node(nc, name, cpu_percent=12.5)
    body = {"name": "m", "engine_type": "llamacpp", "local_path": "m.gguf", "engine_image": "own:1"}
    assert (await registry.client.post("/admin/models", json=body)).status_code == 201

    async def both() -> Any:
        items = (await registry.client.get("/admin/system/docker-images")).json()["items"]
        return items if len(items) == 2 else None

    items = {item["node"]: item for item in await eventually(both)}
    assert items["a"]["images"][0]["reference"] == "e:1"
    assert items["a"]["reason"] is None
    assert (items["silent"]["images"], "does not answer" in items["silent"]["reason"]) == ([], True)
    assert asked[-1] == ("own:1",)

    capabilities = (await registry.client.get("/admin/system/capabilities")).json()
    features = {one["name"]: one for one in capabilities["features"]}
    assert features["containers"]["available"]
    assert features["gpus"] == {"name": "gpus", "available": False, "reason": "no host reports a GPU"}
    assert (features["backups"]["available"], features["backups"]["reason"]) == (False, "CORTEX_EXPORT_DIR is not set")
    assert [host["node"] for host in capabilities["hosts"]] == ["a", "silent"]
    assert {one["engine_type"] for one in capabilities["engines"] if one["enabled"]} == {"vllm", "llamacpp"}


async def test_trends_show_the_last_minutes_and_looking_at_them_writes_nothing(
    start_registry: Callable[..., Any], nc: Any, database: Any, eventually: Callable[..., Any]
) -> None:
    async with start_registry(trends_step_s=1) as registry:
        await registry.ready()
        await put_node(nc, "a", cpu_percent=12.5)

        async def points() -> Any:
            found = (await registry.client.get("/admin/system/host/trends")).json()["items"]
            return found if found and len(found[0]["points"]) >= 2 else None

        (host,) = await eventually(points, 20)
        assert {point["cpu_percent"] for point in host["points"]} == {12.5}
        assert [point["at"] for point in host["points"]] == sorted(point["at"] for point in host["points"])
        assert await database.fetchval("SELECT count(*) FROM audit") == 0
        bad = await asyncio.gather(
            *(registry.client.get(f"/admin/system/host/trends?minutes={one}") for one in ("0", "x", "-1", "99999"))
        )
        assert {one.status_code for one in bad} == {422}
