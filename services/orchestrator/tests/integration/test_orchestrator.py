"""Orchestrators as real processes on a real NATS, with a real llama-server and a real model."""

import asyncio
import os
import signal
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from cortex_contracts.base import NodeId, replica_id
from cortex_contracts.documents import ModelDocumentV1, NodeDocumentV1, ReplicaDocumentV1
from cortex_contracts.enums import DesiredState, EngineType, ReplicaState, RuntimeKind
from cortex_contracts.rpc import LogsRequestV1, LogsResultV1, RpcReply
from cortex_contracts.streams import NODES
from cortex_contracts.subjects import rpc_logs
from cortex_kit.provision import provision

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]


async def test_a_model_is_served_stopped_and_leaves_nothing(cluster: Any, llama_model: ModelDocumentV1) -> None:
    cluster.start()
    await cluster.put(llama_model)
    document = await cluster.wait_started(llama_model)
    assert await cluster.chat(document)
    (engine,) = cluster.engines()
    assert "LLAMA_API_KEY" in engine.environ()
    assert not any(name.startswith("CORTEX_") for name in engine.environ())
    assert engine.environ()["LLAMA_API_KEY"] not in " ".join(engine.cmdline())
    async with httpx.AsyncClient() as client:
        refused = await client.post(f"{document.endpoint}/v1/chat/completions", json={"messages": []})
    assert refused.status_code == 401

    await cluster.put(llama_model.model_copy(update={"desired_state": DesiredState.STOPPED}))
    await cluster.until(lambda: "container.removed" in cluster.subjects(), "the engine is removed")
    assert cluster.engines() == []
    await cluster.until(lambda: _is_gone(cluster, llama_model), "the document is gone")
    expected = ["container.created", "container.started", "container.stopped", "container.removed"]
    assert [subject for subject in cluster.subjects() if subject.startswith("container.")] == expected
    assert cluster.event("container.stopped")["exit_code"] == 0


async def _is_gone(cluster: Any, model: ModelDocumentV1) -> bool:
    return await cluster.replica(model) is None


async def test_a_killed_engine_is_reported_with_its_exit_code_and_comes_back(
    cluster: Any, llama_model: ModelDocumentV1
) -> None:
    cluster.start()
    await cluster.put(llama_model)
    first = await cluster.wait_started(llama_model)
    await cluster.chat(first)
    cluster.engines()[0].kill()
    failed = await cluster.until(lambda: cluster.event("container.failed"), "the failure is reported")
    assert failed["exit_code"] == 137
    assert failed["diagnosis"]["code"] == "killed"
    assert failed["log_tail"]
    assert failed["next_attempt_at"]
    second = await cluster.wait_started(llama_model, not_endpoint=first.endpoint)
    assert second.restarts == 1
    assert await cluster.chat(second)


async def test_an_engine_survives_the_death_of_its_orchestrator_and_is_adopted(
    cluster: Any, llama_model: ModelDocumentV1
) -> None:
    orchestrator = cluster.start()
    await cluster.put(llama_model)
    before = await cluster.wait_started(llama_model)
    await cluster.chat(before)
    (engine,) = cluster.engines()
    orchestrator.send_signal(signal.SIGKILL)
    orchestrator.wait(timeout=10)
    assert await cluster.chat(before)

    successor = cluster.start()
    adopted = await cluster.until(lambda: cluster.event("container.adopted"), "the engine is adopted")
    assert adopted["endpoint"] == before.endpoint
    assert [process.pid for process in cluster.engines()] == [engine.pid]
    assert (await cluster.replica(llama_model)).spec_hash == before.spec_hash

    os.kill(engine.pid, signal.SIGSEGV)  # the exit code is known although the successor did not start it
    failed = await cluster.until(lambda: cluster.event("container.failed"), "the failure is reported")
    assert failed["exit_code"] == 128 + signal.SIGSEGV
    await cluster.wait_started(llama_model, not_endpoint=before.endpoint)

    successor.send_signal(signal.SIGTERM)
    assert successor.wait(timeout=20) == 0
    assert len(cluster.engines()) == 1
    assert "stopped" in cluster.stop_engines()
    assert cluster.engines() == []


async def test_with_nats_away_a_crashed_engine_comes_back_and_is_reported_later(
    cluster: Any, llama_model: ModelDocumentV1
) -> None:
    cluster.start()
    await cluster.put(llama_model)
    before = await cluster.wait_started(llama_model)
    await cluster.chat(before)
    cluster.server.kill()
    (engine,) = cluster.engines()
    engine.kill()

    def restarted() -> bool:
        pids = [process.pid for process in cluster.engines()]
        return len(pids) == 1 and pids[0] != engine.pid

    await cluster.until(restarted, "the engine is started again without NATS")
    cluster.server.start()
    after = await cluster.wait_started(llama_model, not_endpoint=before.endpoint)
    assert await cluster.chat(after)
    await cluster.until(lambda: _stored(cluster, "container.failed"), "the failure is published late")


async def _stored(cluster: Any, subject: str) -> bool:
    return bool(await cluster.jetstream.get_last_msg("EVENTS", subject))


async def test_a_wiped_store_costs_no_engine_and_is_filled_again(cluster: Any, llama_model: ModelDocumentV1) -> None:
    cluster.start()
    await cluster.put(llama_model)
    before = await cluster.wait_started(llama_model)
    (engine,) = cluster.engines()
    cluster.server.stop()
    cluster.server.wipe()
    cluster.server.start()
    await cluster.until(lambda: cluster.client.is_connected, "the test's own client is back")
    await cluster.until(lambda: _provisioned(cluster), "the store is provisioned again")
    await asyncio.sleep(1.5)  # the registry takes its time; the models bucket is empty meanwhile
    assert [process.pid for process in cluster.engines()] == [engine.pid]
    await cluster.put(llama_model)
    after = await cluster.wait_started(llama_model)
    assert after.endpoint == before.endpoint
    assert after.aggregateversion > before.aggregateversion
    await asyncio.sleep(3.5)
    assert [process.pid for process in cluster.engines()] == [engine.pid]

    await cluster.delete(llama_model)
    await cluster.until(lambda: not cluster.engines(), "a deleted model's engine goes after the grace period")


async def _provisioned(cluster: Any) -> bool:
    await provision(cluster.jetstream)
    return True


async def test_a_changed_specification_replaces_the_engine_and_logs_are_answered(
    cluster: Any, llama_model: ModelDocumentV1
) -> None:
    cluster.start()
    await cluster.put(llama_model)
    first = await cluster.wait_started(llama_model)
    request = LogsRequestV1(model_id=llama_model.id, tail=50)
    subject = rpc_logs(NodeId("testnode"))

    async def logs() -> Any:
        answer = await cluster.client.request(subject, request.model_dump_json().encode(), timeout=2)
        reply = RpcReply[LogsResultV1].model_validate_json(answer.data)
        return reply.result is not None and any("model" in line for line in reply.result.lines)

    await cluster.until(logs, "the logs are answered")
    missing = LogsRequestV1(model_id=llama_model.id, ordinal=7)
    answer = await cluster.client.request(subject, missing.model_dump_json().encode(), timeout=2)
    assert RpcReply[LogsResultV1].model_validate_json(answer.data).error.code == "replica_not_found"

    await cluster.put(llama_model.model_copy(update={"restart_generation": 1}))
    second = await cluster.wait_started(llama_model, not_endpoint=first.endpoint)
    assert second.spec_hash != first.spec_hash
    assert await cluster.chat(second)
    await cluster.until(lambda: "node.updated" in cluster.subjects(), "the node was looked at, which takes its time")
    node = await (await cluster.jetstream.key_value(NODES.name)).get("testnode")
    assert NodeDocumentV1.model_validate_json(node.value).memory_total > 0


async def test_what_cannot_run_fails_with_a_reason_and_a_stale_document_goes(
    cluster: Any, llama_model: ModelDocumentV1
) -> None:
    cluster.extra["CORTEX_ORCHESTRATOR_VLLM"] = "/nowhere/vllm"
    kv = await cluster.jetstream.key_value("replicas")
    stale = llama_model.model_copy(update={"id": "0198c0de-0000-7000-8000-000000000000"})
    left_over = ReplicaDocumentV1(
        id=replica_id(stale.id, 0),
        model_id=stale.id,
        ordinal=0,
        engine_type=EngineType.LLAMACPP,
        node=NodeId("testnode"),
        runtime=RuntimeKind.PROCESS,
        spec_hash="x",
        state=ReplicaState.STARTED,
        since=datetime.now(UTC),
        aggregateversion=1,
    )
    await kv.put(left_over.id, left_over.model_dump_json().encode())
    vllm = llama_model.model_copy(
        update={"id": "0198c0de-1111-7000-8000-000000000000", "engine_type": EngineType.VLLM, "repo_id": "x/y"}
    )
    missing = llama_model.model_copy(
        update={"id": "0198c0de-2222-7000-8000-000000000000", "local_path": "not-there.gguf"}
    )
    await cluster.put(vllm)
    await cluster.put(missing)
    cluster.start()

    async def vllm_failed() -> Any:
        document = await cluster.replica(vllm)
        return document and document.state is ReplicaState.FAILED and "/nowhere/vllm" in document.reason

    await cluster.until(vllm_failed, "the missing program is reported")
    diagnosed = await cluster.until(
        lambda: next(
            (
                event["data"]["diagnosis"]["code"]
                for subject, event in cluster.events
                if subject == "container.failed" and event["data"]["model_id"] == missing.id
            ),
            None,
        ),
        "the missing file is diagnosed",
    )
    assert diagnosed == "file_missing"
    await cluster.until(lambda: _is_gone(cluster, stale), "the stale document is removed")
    await asyncio.sleep(2.5)
    rejected = [
        event
        for subject, event in cluster.events
        if subject == "container.failed" and event["data"]["model_id"] == vllm.id
    ]
    assert len(rejected) == 1
