"""Limits of one key under load: `python tests/bench/limits.py [--seconds 130] [--clients 200] [--rpm 1000] [--gateways 4]`.

Gateways as processes, a real NATS, stand-in engines (tests/bench/gateway), clients that never let go: each sends its next
request when the last is answered, and after a 429 a quarter of a second later, whatever it was told. Prints how many requests
were answered in each minute and in the worst sixty seconds, and how long requests took that were answered and refused.
`--kill-nats` kills NATS after a third of the time and starts it again, its counters of minutes lost, after ten seconds.
"""

import argparse
import asyncio
import bisect
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway import world
from pydantic import SecretStr

from cortex_kit.bus import Bus
from cortex_kit.provision import provision
from cortex_testing.servers import free_port, wait_for_port

BODY = b'{"model":"m","max_tokens":16,"messages":[{"role":"user","content":"Say something."}]}'
AFTER_REFUSAL_S = 0.25


@dataclass
class Outcome:
    """What the clients saw."""

    answered: list[float] = field(default_factory=list)
    """When, seconds since the start."""
    answered_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    others: dict[int, int] = field(default_factory=dict)
    limits: set[bytes] = field(default_factory=set)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(head[9:12]), head


async def client(port: int, key: str, began: float, seconds: float, outcome: Outcome) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    request = f"{head}content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY
    while time.monotonic() - began < seconds:
        sent = time.monotonic()
        writer.write(request)
        async with asyncio.timeout(60):
            status, answer = await read_answer(reader)
        now = time.monotonic()
        if status == 200:
            outcome.answered.append(now - began)
            outcome.answered_ms.append((now - sent) * 1000)
        elif status == 429:
            outcome.refused_ms.append((now - sent) * 1000)
            if b"retry-after: " not in answer.lower():
                raise RuntimeError("a refusal without Retry-After")
            await asyncio.sleep(AFTER_REFUSAL_S)
        else:
            outcome.others[status] = outcome.others.get(status, 0) + 1
            await asyncio.sleep(AFTER_REFUSAL_S)
    writer.close()


async def disturb(place: world.GatewayWorld, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await asyncio.to_thread(place.nats.kill)
    await asyncio.sleep(10)
    await asyncio.to_thread(place.nats.start)
    bus = Bus(SecretStr(place.nats.url), name="bench")
    running = asyncio.create_task(bus.run())
    async with asyncio.timeout(30):
        await bus.wait_connected()
        await provision(bus.js)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def worst_minute(times: Sequence[float]) -> int:
    """The most that lie within any sixty seconds."""
    times = sorted(times)
    return max((index + 1 - bisect.bisect_right(times, at - 60) for index, at in enumerate(times)), default=0)


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


async def load(ports: Sequence[int], key: str, options: argparse.Namespace, place: world.GatewayWorld) -> Outcome:
    outcome, began = Outcome(), time.monotonic()
    async with asyncio.TaskGroup() as group:
        if options.kill_nats:
            group.create_task(disturb(place, options.seconds / 3))
        for number in range(options.clients):
            port = ports[number % len(ports)]
            group.create_task(client(port, key, began, options.seconds, outcome))
    return outcome


def report(outcome: Outcome, options: argparse.Namespace) -> str:
    lines = [f"{options.gateways} gateways, {options.clients} clients, {options.rpm} requests per minute"]
    for minute in range(int(options.seconds // 60)):
        count = sum(minute * 60 <= at < minute * 60 + 60 for at in outcome.answered)
        lines.append(f"minute {minute + 1}: {count} answered ({(count / options.rpm - 1) * 100:+.2f} %)")
    tens = [0] * (int(options.seconds // 10) + 2)
    for at in outcome.answered:
        tens[min(len(tens) - 1, int(at // 10))] += 1
    lines.append(f"answered in each ten seconds: {' '.join(map(str, tens))}")
    worst = worst_minute(outcome.answered)
    lines.append(f"worst sixty seconds: {worst} ({(worst / options.rpm - 1) * 100:+.2f} %)")
    for name, values in (("answered", outcome.answered_ms), ("refused", outcome.refused_ms)):
        p50 = statistics.median(values) if values else 0.0
        lines.append(f"{name}: {len(values)}, p50 {p50:.2f} ms, p99 {percentile(values, 0.99):.2f} ms")
    lines.append(f"other answers: {outcome.others or 'none'}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=130)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rpm", type=int, default=1000)
    parser.add_argument("--gateways", type=int, default=4)
    parser.add_argument("--kill-nats", action="store_true")
    options = parser.parse_args()
    cores = world.Cores(0, 1)
    world.KEY_LIMITS.clear()
    world.KEY_LIMITS["requests_per_minute"] = options.rpm
    with tempfile.TemporaryDirectory() as folder:
        tools = world.Tools(Path(folder))
        engines = world.Engines(tools, cores)
        place = world.GatewayWorld(cores, engines.ports, keys=1)
        ports = [free_port() for _ in range(options.gateways)]
        processes = [subprocess.Popen(place.command(), env=place.environment(port)) for port in ports]
        try:
            for port, process in zip(ports, processes, strict=True):
                wait_for_port(port, process)
            time.sleep(12)  # by then each gateway knows how many there are
            outcome = asyncio.run(load(ports, place.api_key, options, place))
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)
            place.close()
            engines.close()
    sys.stdout.write(report(outcome, options) + "\n")


if __name__ == "__main__":
    main()
