"""Budgets of keys outlive the loss of NATS: the registry raises their counters to what the records say."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client

from cortex_contracts.base import KeyId, ModelId
from cortex_contracts.events import UsageRecordedV1
from cortex_contracts.subjects import budget_counter
from cortex_kit.events import new_envelope

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


async def record(nc: Client, key_id: str, number: int) -> None:
    usage = UsageRecordedV1(
        request_id=f"request-{key_id}-{number}",
        key_id=KeyId(key_id),
        model="m",
        model_id=ModelId("model"),
        route="/v1/chat/completions",
        stream=False,
        status=200,
        outcome="completed",
        prompt_tokens=30,
        completion_tokens=20,
        duration_ms=1.5,
        started_at=datetime.now(UTC),
    )
    envelope = new_envelope(usage, source="cortex/gateway/test", aggregate_id=usage.request_id, now=datetime.now(UTC))
    await nc.jetstream().publish("usage.recorded", envelope.model_dump_json().encode())


async def counter(nc: Client, key_id: str) -> int | None:
    subject = budget_counter(KeyId(key_id), datetime.now(UTC).strftime("%Y%m"))
    ack = await nc.jetstream().publish(subject, b"", headers={"Nats-Incr": "+0"})
    return None if ack.val is None else int(ack.val)


async def test_a_budget_s_counter_that_was_lost_is_raised_to_what_was_spent_and_one_that_is_ahead_is_left(
    registry: Any, nc: Client, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cortex_registry.handlers.budgets.EVERY_S", 0.2)
    monkeypatch.setattr("cortex_registry.handlers.budgets.LOOK_EVERY_S", 0.2)
    ids: list[str] = []
    for budget in (10_000, 10_000, None):
        body = {"name": f"key {len(ids)}"} | ({} if budget is None else {"tokens_per_month": budget})
        answer = await registry.client.post("/admin/keys", json=body)
        assert answer.status_code == 201, answer.text
        ids.append(answer.json()["id"])
    lost, ahead, unlimited = ids
    subject = budget_counter(KeyId(ahead), datetime.now(UTC).strftime("%Y%m"))
    await nc.jetstream().publish(subject, b"", headers={"Nats-Incr": "+777"})
    for key_id in ids:
        for number in range(3):
            await record(nc, key_id, number)

    async def raised() -> bool:
        return await counter(nc, lost) == 150

    await eventually(raised, 30)
    assert await counter(nc, ahead) == 777
    assert await counter(nc, unlimited) == 0
    await nc.jetstream().purge_stream("BUDGETS")
    await eventually(raised, 30)
