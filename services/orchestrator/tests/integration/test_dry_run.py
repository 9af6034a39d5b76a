"""A dry run over a real NATS, answered by a real orchestrator that knows a real llama-server."""

import json
from typing import Any

import pytest

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.operations import DryRunRequestV1, DryRunResultV1
from cortex_contracts.rpc import RpcReply
from cortex_contracts.subjects import RPC_ORCHESTRATOR_DRY_RUN

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


async def ask(cluster: Any, model: ModelDocumentV1) -> RpcReply[DryRunResultV1]:
    request = DryRunRequestV1(model=model).model_dump_json().encode()

    async def answer() -> Any:
        return await cluster.client.request(RPC_ORCHESTRATOR_DRY_RUN, request, timeout=5)

    reply = await cluster.until(answer, "the orchestrator answers", timeout=60)
    return RpcReply[DryRunResultV1].model_validate(json.loads(reply.data))


async def test_a_dry_run_is_what_a_start_makes_and_starts_nothing(cluster: Any, llama_model: ModelDocumentV1) -> None:
    cluster.start()
    cluster.start()
    shown = (await ask(cluster, llama_model)).result
    assert shown is not None
    assert shown.node == "testnode"
    assert shown.image is not None
    assert shown.image.endswith("llama-server")
    assert "--ctx-size" in shown.argv
    assert shown.env["LLAMA_API_KEY"] == "***"
    assert shown.placement.reason
    assert cluster.engines() == []
    assert await cluster.replicas() == []
    assert not any(subject.startswith("container.") for subject in cluster.subjects())

    refused = await ask(cluster, llama_model.model_copy(update={"extra_args": ("--nonsense",)}))
    assert refused.error is not None
    assert refused.error.code == "engine_option_unsupported"

    await cluster.put(llama_model)
    started = await cluster.wait_started(llama_model)
    assert started.spec_hash == shown.spec_hash
