"""`python -m cortex_console`"""

from cortex_console.app import build
from cortex_console.settings import Settings
from cortex_kit.runner import run


def main() -> None:
    """Run the console until a signal."""
    run(Settings(), build)


if __name__ == "__main__":
    main()
