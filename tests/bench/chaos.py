"""Fifty models for ten minutes of chaos: `python tests/bench/chaos.py [--models 50] [--seconds 600] [--seed 1]`."""

import argparse
import shutil
import tempfile
from pathlib import Path

from cortex_testing.binaries import demo_gguf
from cortex_testing.chaos import Chaos
from cortex_testing.stack import Stack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--pause", type=float, default=1.0, help="mean seconds between two acts")
    parser.add_argument("--settle", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cortex-chaos-"))
    stack = Stack(folder / "home")
    stack.start()
    try:
        chaos = Chaos(stack, demo_gguf(), models=chosen.models, seed=chosen.seed)
        outcome = chaos.run(chosen.seconds, pause_s=chosen.pause, settle_s=chosen.settle)
        print(sum(outcome.acts.values()), "acts:", dict(outcome.acts))
        print(
            f"{outcome.models} models, {outcome.running} of them run as desired {outcome.converged_s:.0f} s after the last act, "
            f"{outcome.answered} answered through the gateway"
        )
        chaos.clean()
    except BaseException:
        print(f"logs are kept in {folder}")
        raise
    finally:
        stack.stop()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
