"""What is done on request: logs, and stopping everything."""

from typing import Any

import pytest

from cortex_contracts.rpc import LogsRequestV1
from cortex_kit.errors import DomainError
from cortex_orchestrator.handlers.logs import read_logs
from cortex_orchestrator.handlers.stop_engines import stop_engines


async def test_stop_engines_leaves_nothing_and_says_so(stage: Any) -> None:
    await stage.started()
    said: list[str] = []
    assert await stop_engines(stage.runtime, 5, said.append)
    assert said == [
        f"stopped llamacpp-model-{stage.model.id}-0 (exit code 0)",
        f"removed llamacpp-model-{stage.model.id}-0",
    ]
    assert await stop_engines(stage.runtime, 5, said.append)
    assert said[-1] == "no engines"


async def test_logs_are_read_of_known_replicas_only(stage: Any) -> None:
    await stage.started()
    result = await read_logs(stage.runtime, LogsRequestV1(model_id=stage.model.id, tail=1))
    assert result.lines == ("mode x",)
    with pytest.raises(DomainError) as caught:
        await read_logs(stage.runtime, LogsRequestV1(model_id=stage.model.id, ordinal=1))
    assert caught.value.code == "replica_not_found"


async def test_a_reply_with_logs_stays_within_a_message(stage: Any) -> None:
    await stage.started()
    stage.runtime.lines = ("x" * 100_000,) * 5000
    result = await read_logs(stage.runtime, LogsRequestV1(model_id=stage.model.id, tail=5000))
    assert 0 < len(result.model_dump_json()) < 512 * 1024
