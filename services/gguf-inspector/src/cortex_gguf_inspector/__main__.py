"""`python -m cortex_gguf_inspector`: run the service."""

from cortex_gguf_inspector.app import build
from cortex_gguf_inspector.settings import Settings
from cortex_kit.runner import run

if __name__ == "__main__":
    run(Settings(), build)  # pyright: ignore[reportCallIssue] - the values come from the environment
