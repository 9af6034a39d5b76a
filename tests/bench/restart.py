"""How soon a killed gateway answers with NATS, registry and Postgres down: `python tests/bench/restart.py [--kills 10]`.

The embedded stack with its demo model; a client asks without pause. From SIGKILL to the first answer,
the tenth of a second included that the supervisor waits before it starts the gateway again.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from cortex_testing.restart import first_answer_s
from cortex_testing.stack import Stack

CALM_S = 16.0
"""A gateway that lived so long is started again at once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder) / "home")
        stack.start()
        took: list[float] = []
        try:
            with stack.down("nats", "registry", "postgres"):
                for _ in range(chosen.kills):
                    time.sleep(CALM_S)
                    took.append(first_answer_s(stack))
                    sys.stdout.write(f"{took[-1]:.2f} s\n")
        finally:
            stack.stop()
        sys.stdout.write(f"median {statistics.median(took):.2f} s, most {max(took):.2f} s\n")


if __name__ == "__main__":
    main()
