"""`python -m cortex_console`"""

import gc

from cortex_console.app import build
from cortex_console.settings import Settings
from cortex_kit.runner import run


def main() -> None:
    """Run the console until a signal."""
    # What the libraries have made stays for good, and is a hundred thousand objects: to look through them for garbage, as Python does
    # now and then, takes longer than a page.
    gc.collect()
    gc.freeze()
    run(Settings(), build)


if __name__ == "__main__":
    main()
