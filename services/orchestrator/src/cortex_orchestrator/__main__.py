"""`python -m cortex_orchestrator [stop-engines]`."""

import asyncio
import sys

from cortex_contracts.base import NodeId
from cortex_kit.errors import TransientError
from cortex_kit.logging import configure_logging
from cortex_kit.runner import run
from cortex_orchestrator.adapters.forgetting import forget_replicas
from cortex_orchestrator.app import build, new_runtime
from cortex_orchestrator.handlers.stop_engines import stop_engines
from cortex_orchestrator.settings import Settings

FORGET_TIMEOUT_S = 3.0
USAGE = "usage: python -m cortex_orchestrator [stop-engines]"


async def _stop_engines(settings: Settings) -> int:
    runtime = new_runtime(settings)
    deadline_s = settings.stop_engines_deadline_s
    try:
        # The margin is for killing and removing what did not stop in time.
        async with asyncio.timeout(deadline_s + 30):
            stopped = await stop_engines(runtime, deadline_s, lambda line: print(line, flush=True))  # noqa: T201
    except (TransientError, TimeoutError) as error:
        print(f"engines may still run: {error}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        await runtime.close()
    try:
        await forget_replicas(settings.nats_url, NodeId(settings.node), timeout_s=FORGET_TIMEOUT_S)
    except (TransientError, TimeoutError):
        print("NATS is away: the replicas' documents stay until the next start", file=sys.stderr)  # noqa: T201
    return 0 if stopped else 1


def main() -> None:
    """Run the service, or the one-shot command."""
    match sys.argv[1:]:
        case []:
            run(Settings(), build)  # pyright: ignore[reportCallIssue] - values come from the environment
        case ["stop-engines"]:
            settings = Settings()  # pyright: ignore[reportCallIssue] - values come from the environment
            configure_logging("orchestrator", settings.instance, settings.log_level, settings.log_format)
            sys.exit(asyncio.run(_stop_engines(settings)))
        case _:
            sys.exit(USAGE)


if __name__ == "__main__":
    main()
