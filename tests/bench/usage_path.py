"""What a usage record costs the gateway: `python tests/bench/usage_path.py [--records 20000]`.

CPU time of this process (`process_time`) for each part, on a real NATS (`sync_interval` as by default) and a real folder:
making the record, appending it to the spool, and publishing it alone or with others.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from cortex_gateway.adapters import usage_publisher
from cortex_gateway.adapters.usage_publisher import UsagePublisher
from cortex_gateway.adapters.usage_spool import UsageSpool
from cortex_gateway.domain.usage import UsageData, UsageEnvelope
from cortex_kit.bus import Bus
from cortex_kit.events import EventPublisher
from cortex_kit.ids import uuid7
from cortex_kit.provision import provision
from cortex_testing.servers import NatsServer


def record(number: int) -> bytes:
    now = datetime.now(UTC)
    data = UsageData(
        request_id=uuid7(),
        key_id="0190a5a4-7a3e-7e56-a2c1-0d9f7c6b5a43",
        user_id="0190a5a4-7a3e-7e56-a2c1-0d9f7c6b5a44",
        org_id="0190a5a4-7a3e-7e56-a2c1-0d9f7c6b5a45",
        model_id="0190a5a4-7a3e-7e56-a2c1-0d9f7c6b5a46",
        model="gpt-oss-120b",
        engine_type="llamacpp",
        replica_id="0190a5a4-7a3e-7e56-a2c1-0d9f7c6b5a46-0",
        task="generate",
        route="/v1/chat/completions",
        stream=False,
        status=200,
        outcome="completed",
        prompt_tokens=number,
        cached_tokens=0,
        completion_tokens=100,
        estimated=False,
        ttft_ms=12.3,
        duration_ms=456.7,
        started_at=now,
    )
    return UsageEnvelope("cortex/gateway/bench").encode(data, now, None, None)


def measure(name: str, count: int, work: Callable[[], object]) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    tell(name, count, time.process_time() - cpu, time.perf_counter() - began)


def tell(name: str, count: int, cpu_s: float, wall_s: float) -> None:
    sys.stdout.write(f"{name}: {cpu_s / count * 1e6:.2f} us CPU, {wall_s / count * 1e6:.2f} us in all, a record\n")


async def publish_all(spool: UsageSpool, events: EventPublisher) -> None:
    publisher = UsagePublisher(spool, events.publish_raw)
    while (batch := spool.next_batch()) is not None:
        if not await publisher._publish_batch(batch):
            raise RuntimeError("NATS did not confirm")


async def main(count: int) -> None:
    server = NatsServer()
    server.start()
    bus = Bus(SecretStr(server.url), name="bench")
    running = asyncio.create_task(bus.run())
    try:
        await bus.wait_connected()
        await provision(bus.js)
        records: list[bytes] = []
        measure("making", count, lambda: records.extend(record(number) for number in range(count)))
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
            for at_once in (1, usage_publisher.MESSAGE_RECORDS):
                spool = UsageSpool(Path(folder), max_bytes=1 << 30, fsync="interval")
                some = records if at_once > 1 else records[: count // 10]

                def append(spool: UsageSpool = spool, some: list[bytes] = some) -> None:
                    for one in some:
                        spool.append(one)

                measure("appending", len(some), append)
                usage_publisher.MESSAGE_RECORDS = at_once
                began, cpu = time.perf_counter(), time.process_time()
                await publish_all(spool, EventPublisher(bus, source="cortex/gateway/bench"))
                tell(
                    f"publishing, {at_once} to a message",
                    len(some),
                    time.process_time() - cpu,
                    time.perf_counter() - began,
                )
                spool.close()
                await bus.js.purge_stream("USAGE")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    asyncio.run(main(parser.parse_args().records))
