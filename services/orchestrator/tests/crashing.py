"""An orchestrator that is killed by SIGKILL at a chosen step of the start of a chosen replica.

`python crashing.py REPLICA STEP`: every call on the runtime, every document and every event about the replica counts
twice, before it is made and after. Step 0 never comes.
"""

import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from cortex_kit.events import EventPublisher
from cortex_kit.kv import KVStore
from cortex_orchestrator.__main__ import main
from cortex_orchestrator.adapters.process_runtime import ProcessRuntime


class Steps:
    """Counts the steps of one replica and kills this process at the last one."""

    def __init__(self, replica: str, last: int) -> None:
        self._replica = replica
        self._last = last
        self._count = 0

    def count(self, name: str, replica: object) -> None:
        if replica != self._replica:
            return
        self._count += 1
        print(f"step {self._count}: {name}", flush=True)  # noqa: T201
        if self._count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: Any, method: str, replica_of: Callable[..., object]) -> None:
        original = getattr(owner, method)

        @functools.wraps(original)
        async def wrapped(instance: Any, *arguments: Any, **named: Any) -> Any:
            replica = replica_of(*arguments, **named)
            self.count(f"before {method}", replica)
            result: Awaitable[Any] = original(instance, *arguments, **named)
            answer = await result
            self.count(f"after {method}", replica)
            return answer

        setattr(owner, method, wrapped)


if __name__ == "__main__":
    steps = Steps(sys.argv[1], int(sys.argv[2]))
    del sys.argv[1:]
    steps.wrap(ProcessRuntime, "remove", lambda replica: replica)
    steps.wrap(ProcessRuntime, "create", lambda spec, *_: spec.replica_id)
    steps.wrap(ProcessRuntime, "start", lambda replica: replica)
    steps.wrap(ProcessRuntime, "_spawn_shim", lambda folder, *_: folder.path.name)
    steps.wrap(KVStore, "put", lambda key, _: key)
    steps.wrap(EventPublisher, "publish", lambda event, **named: named["aggregate_id"])
    main()
