"""Memory is promised before it is taken: a model that does not fit is refused with reasons, by the inspector's word."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_testing.stack import Stack, eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

NAME = "greedy"


@pytest.fixture
def greedy(stack: Stack, smollm2_gguf: Path) -> Iterator[Stack]:
    stack.add_gguf(smollm2_gguf, "greedy.gguf")
    yield stack
    stack.admin("POST", f"/admin/models/{NAME}/stop")
    eventually(lambda: stack.model(NAME)["state"] == "stopped")
    stack.cli("model", "delete", NAME, "--yes")


def test_a_model_that_does_not_fit_is_refused_and_starts_when_it_is_made_smaller(greedy: Stack) -> None:
    body = {"name": NAME, "engine_type": "llamacpp", "local_path": "greedy.gguf", "context_size": 100_000_000}
    response = greedy.admin("POST", "/admin/models", body | {"parallel_slots": 1, "skip_warmup": True})
    assert response.status_code == 201, response.text
    greedy.admin("POST", f"/admin/models/{NAME}/start").raise_for_status()
    eventually(lambda: greedy.model(NAME)["state"] == "failed")
    assert "of host memory" in greedy.model(NAME)["reason"]
    assert not any("greedy.gguf" in " ".join(engine.cmdline()) for engine in greedy.engines())
    greedy.admin("PATCH", f"/admin/models/{NAME}", {"context_size": 2048}).raise_for_status()
    eventually(lambda: greedy.model(NAME)["state"] == "running")
    assert greedy.ask(NAME).strip()
