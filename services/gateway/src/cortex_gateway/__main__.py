"""`python -m cortex_gateway`"""

import gc

from cortex_gateway.app import build
from cortex_gateway.settings import Settings
from cortex_kit.runner import run

# Objects made before a look for garbage, by generation. Requests leave next to no cycles behind, and with the 700 that Python
# begins with, every few requests pay for a look at those that run at the same time.
GARBAGE_THRESHOLDS = (10_000, 20, 20)


def main() -> None:
    """Run the gateway until a signal."""
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    run(Settings(), build)  # pyright: ignore[reportCallIssue] - values come from the environment


if __name__ == "__main__":
    main()
