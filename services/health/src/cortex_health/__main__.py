"""`python -m cortex_health`: run the service."""

from cortex_health.app import build
from cortex_health.settings import Settings
from cortex_kit.runner import run

if __name__ == "__main__":
    run(Settings(), build)  # pyright: ignore[reportCallIssue] - the values come from the environment
