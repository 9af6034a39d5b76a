"""One gateway's limiter as a process: asks for permits with many clients at once, tells how many it got.

It waits long for the counters: a machine so busy that NATS takes seconds is not what is tested with it.

`python limit_worker.py NATS_URL SECONDS CLIENTS KEY_JSON`; prints {"granted": n, "refused": n, "held_ms": ...}.
"""

import asyncio
import json
import os
import sys
import time

from pydantic import SecretStr

from cortex_contracts.documents import KeyDocumentV1
from cortex_gateway.adapters import counters
from cortex_gateway.adapters.counters import JetStreamCounters
from cortex_gateway.domain.auth import build_key_ring
from cortex_gateway.domain.errors import ApiError
from cortex_gateway.domain.limits import Need
from cortex_gateway.limiter import Limiter, LimiterRules
from cortex_kit.bus import Bus
from cortex_kit.clock import SystemClock

PATIENCE_S = 20.0


async def main(url: str, seconds: float, clients: int, document: KeyDocumentV1) -> None:
    counters.TIMEOUT_S = PATIENCE_S
    bus = Bus(SecretStr(url), name="gateway")
    limiter = Limiter(JetStreamCounters(bus), SystemClock(), LimiterRules(wait_s=PATIENCE_S), f"gateway-{os.getpid()}")
    bus.on_reconnect(limiter.on_reconnect)
    tasks = [asyncio.create_task(bus.run()), asyncio.create_task(limiter.run())]
    async with asyncio.timeout(20):
        await bus.wait_connected()
        while limiter._local:  # it was started before NATS was within reach
            await asyncio.sleep(0.05)
    [key] = build_key_ring({document.id: document}).values()
    granted = refused = 0
    slowest = 0.0
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    until = time.monotonic() + seconds

    async def client() -> None:
        nonlocal granted, refused, slowest
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                permit = await limiter.admit(key, Need(40), stream=False)
            except ApiError:
                refused += 1
                await asyncio.sleep(0.02)
            else:
                granted += 1
                await asyncio.sleep(0.005)
                permit.settle(100)
                permit.release()
            slowest = max(slowest, time.monotonic() - began)

    await asyncio.gather(*(client() for _ in range(clients)))
    await limiter.drained()
    sys.stdout.write(json.dumps({"granted": granted, "refused": refused, "slowest": slowest}) + "\n")
    sys.stdout.flush()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), KeyDocumentV1.model_validate_json(sys.argv[4])))
