"""The projected state in the API, and its announcements on the stream."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from nats.aio.client import Client

from cortex_contracts.envelope import Envelope
from cortex_contracts.events import ModelStateChangedV1

pytestmark = pytest.mark.integration

LLAMA = {"name": "m", "engine_type": "llamacpp", "local_path": "m.gguf"}


@pytest.mark.timeout(60)
async def test_a_model_is_announced_from_stopped_to_running_to_failed_once_each(
    start_registry: Callable[..., AbstractAsyncContextManager[Any]],
    inspector: Any,
    nc: Client,
    put_replica: Any,
    eventually: Callable[..., Any],
) -> None:
    told: list[ModelStateChangedV1] = []

    async def hear(message: Any) -> None:
        told.append(Envelope[ModelStateChangedV1].model_validate_json(message.data).data)

    await nc.subscribe("model.state_changed", cb=hear)
    async with start_registry() as registry, start_registry() as standby:
        await registry.ready()
        await standby.ready()
        model_id = (await registry.client.post("/admin/models", json=LLAMA)).json()["id"]

        async def seen(state: str) -> bool:
            shown = (await registry.client.get("/admin/models/m")).json()["state"] == state
            return shown and bool(told) and told[-1].state == state

        await eventually(lambda: seen("stopped"))
        await registry.client.post("/admin/models/m/start")
        await eventually(lambda: seen("starting"))
        await put_replica(model_id, "started", version=1)
        await eventually(lambda: seen("loading"))
        await put_replica(model_id, "started", verdict="healthy", version=2)
        await eventually(lambda: seen("running"))
        await put_replica(model_id, "failed", version=3)
        await eventually(lambda: seen("failed"))
        again = (await standby.client.post("/admin/models/m/start")).json()
        assert again["restart_generation"] == 1, "starting a failed model is a new attempt"
    told_before = [change.state for change in told]
    assert told_before == ["stopped", "starting", "loading", "running", "failed"]
    assert [change.previous for change in told] == [None, "stopped", "starting", "loading", "running"]

    async with start_registry() as registry:
        await registry.ready()
        await put_replica(model_id, "started", verdict="healthy", version=4)
        await eventually(lambda: told[-1].state == "running")
    assert [change.state for change in told] == [*told_before, "running"], "a restart announces nothing anew"
