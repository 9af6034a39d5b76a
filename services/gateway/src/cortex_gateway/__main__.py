"""`python -m cortex_gateway`"""

from cortex_gateway import garbage
from cortex_gateway.app import build
from cortex_gateway.settings import Settings
from cortex_kit.runner import run


def main() -> None:
    """Run the gateway until a signal."""
    garbage.begin()
    run(Settings(), build)  # pyright: ignore[reportCallIssue] - values come from the environment


if __name__ == "__main__":
    main()
