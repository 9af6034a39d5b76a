"""The doctor over a real Postgres and a real NATS."""

from collections.abc import Callable
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from cortex_contracts.base import NodeId
from cortex_contracts.doctor import CheckV1, CheckVerdict, ExamineResultV1
from cortex_contracts.documents import NodeDocumentV1
from cortex_contracts.rpc import RpcReply
from cortex_contracts.subjects import rpc_examine

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


def finding(answer: Any, where: str, name: str) -> Any:
    return next(one for one in answer["items"] if (one["where"], one["name"]) == (where, name))


async def test_the_registry_and_every_node_are_examined(registry: Any, nats_server: Any, eventually: Callable) -> None:
    answer = (await registry.client.get("/admin/doctor")).json()
    assert answer["verdict"] == "failed"
    assert finding(answer, "registry", "orchestrator")["fix"]
    assert finding(answer, "registry", "postgres")["verdict"] == "ok"
    assert finding(answer, "registry", "clock")["verdict"] == "ok"

    client = await nats.connect(nats_server.url)
    try:

        async def examine(message: Msg) -> None:
            check = CheckV1(name="memory", verdict=CheckVerdict.WARNING, found="little", fix="more")
            result = ExamineResultV1(node=NodeId("gpu-1"), time="2001-01-01T00:00:00Z", checks=(check,))
            await message.respond(RpcReply[ExamineResultV1](result=result).model_dump_json().encode())

        await client.subscribe(rpc_examine(NodeId("gpu-1")), cb=examine)
        kv = await client.jetstream().key_value("nodes")
        for name in ("gpu-1", "gone"):
            node = NodeDocumentV1(
                id=NodeId(name), hostname=name, runtime="process", cpu_count=1, memory_total=1, memory_available=1,
                aggregateversion=1,
            )  # fmt: skip
            await kv.put(name, node.model_dump_json().encode())

        async def both() -> Any:
            found = (await registry.client.get("/admin/doctor", timeout=30)).json()
            return found if {"gpu-1", "gone"} <= {one["where"] for one in found["items"]} else None

        answer = await eventually(both, 30)
    finally:
        await client.close()
    assert finding(answer, "gpu-1", "memory") == {
        "where": "gpu-1", "name": "memory", "verdict": "warning", "found": "little", "fix": "more"
    }  # fmt: skip
    assert finding(answer, "gpu-1", "clock")["verdict"] == "failed"
    assert "does not answer" in finding(answer, "gone", "orchestrator")["found"]
