"""The short variant of `tests/bench/chaos.py`."""

from pathlib import Path

import pytest

from cortex_testing.chaos import Chaos
from cortex_testing.stack import Stack

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]


def test_desire_wins_over_random_acts_and_kills(stack: Stack, smollm2_gguf: Path) -> None:
    chaos = Chaos(stack, smollm2_gguf, models=6, seed=7)
    try:
        outcome = chaos.run(25, pause_s=0.7, settle_s=120)
        assert sum(outcome.acts.values()) > 10
        assert outcome.acts["kill engine"]
        assert outcome.answered == outcome.running
    finally:
        chaos.clean()
