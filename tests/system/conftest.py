"""One stack for all system tests: they leave it as they found it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_testing.stack import Stack


@pytest.fixture(scope="session")
def _session_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("cortex") / "home")
    stack.start()
    yield stack
    status = stack.stop()
    assert status == 0, stack.tail()
    assert stack.engines() == [], "an engine outlived `cortex up`"


@pytest.fixture
def stack(_session_stack: Stack, tmp_path: Path) -> Stack:
    return _session_stack
