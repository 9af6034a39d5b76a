"""A model is changed while it answers: the new replica serves before the old one goes, and no request fails."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import openai
import pytest

from cortex_testing.stack import Stack, eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

NAME = "rolled"


@pytest.fixture
def rolled(stack: Stack, smollm2_gguf: Path) -> Iterator[Stack]:
    stack.add_gguf(smollm2_gguf, "rolled.gguf")
    yield stack
    stack.admin("POST", f"/admin/models/{NAME}/stop")
    eventually(lambda: not commands(stack), timeout=90)
    stack.cli("model", "delete", NAME, "--yes")


def commands(stack: Stack) -> list[str]:
    lines = [" ".join(engine.cmdline()) for engine in stack.engines()]
    return [line for line in lines if "rolled.gguf" in line]


class Traffic:
    """One request after the other, without retries, until it is told to stop."""

    def __init__(self, stack: Stack) -> None:
        self.answers = 0
        self.failures: list[str] = []
        self._stack = stack
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=90)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                assert self._stack.ask(NAME, max_tokens=4)
                self.answers += 1
            except openai.APIError as error:
                self.failures.append(repr(error))


def test_no_request_fails_while_a_model_moves_to_its_next_specification(rolled: Stack) -> None:
    body = {"name": NAME, "engine_type": "llamacpp", "local_path": "rolled.gguf", "context_size": 1024}
    response = rolled.admin("POST", "/admin/models", body | {"parallel_slots": 1, "skip_warmup": True})
    assert response.status_code == 201, response.text
    rolled.admin("POST", f"/admin/models/{NAME}/start").raise_for_status()
    eventually(lambda: rolled.model(NAME)["state"] == "running", timeout=90)
    with Traffic(rolled) as traffic:
        eventually(lambda: traffic.answers >= 3, timeout=90)
        rolled.admin("PATCH", f"/admin/models/{NAME}", {"context_size": 2048}).raise_for_status()
        both = eventually(lambda: len(found := commands(rolled)) == 2 and found, timeout=90)
        assert sum("2048" in line for line in both) == 1
        eventually(lambda: len(found := commands(rolled)) == 1 and "2048" in found[0], timeout=90)
        before = traffic.answers
        eventually(lambda: traffic.answers >= before + 3, timeout=90)
    assert traffic.failures == []
    assert rolled.model(NAME)["state"] == "running"
