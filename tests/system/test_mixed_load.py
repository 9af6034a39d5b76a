"""The short variant of `tests/bench/mixed_load.py`."""

from pathlib import Path

import pytest

from cortex_testing.mixed_load.ledger import End
from cortex_testing.mixed_load.run import MixedLoad, Plan
from cortex_testing.stack import Stack

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def test_nothing_hangs_or_is_miscounted_while_parts_of_the_stack_die(
    stack: Stack, smollm2_gguf: Path, tmp_path: Path
) -> None:
    load = MixedLoad(stack, smollm2_gguf, tmp_path, Plan(seconds=20, seed=1, clients=10, think_s=0.5, pause_s=1.0))
    try:
        report = load.run()
    finally:
        load.clean()
    assert report.problems == []
    assert sum(one.end is End.ANSWERED for one in report.ledger.seen) > 20
    assert report.acts["replica killed"]
