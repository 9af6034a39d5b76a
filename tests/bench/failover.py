"""How soon gateways leave a dead replica alone: `python tests/bench/failover.py [--gateways 3] [--kills 30] [--verdicts 60]`.

Gateways as processes, a real NATS, four stand-in engines as processes of their own, streams of five events at each gateway. Nobody
judges replicas here but the gateways themselves (their breakers), and then this program by verdicts.

- Kills: a replica is killed (SIGKILL). Each attempt that fails there is in the gateway's log: until when were there any, apart
  from the breaker's probes, which come one at a time, 250 ms after it opened at the earliest?
- Verdicts: one replica is left, which is called unhealthy and healthy in turn while each gateway is asked again and again. From
  before the verdict is written to the first answer that shows it.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gateway import world
from pydantic import SecretStr

from cortex_contracts.documents import VerdictDocumentV1
from cortex_contracts.enums import Verdict
from cortex_contracts.streams import VERDICTS
from cortex_kit.bus import Bus
from cortex_kit.clock import next_version
from cortex_kit.kv import KVStore
from cortex_testing.servers import free_port, wait_for_port

STREAM = b'{"model":"m","stream":true,"max_tokens":5,"seed":10,"messages":[{"role":"user","content":"Say something."}]}'
WHOLE = b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"Say something."}]}'
CLIENTS = 6
"""Streams at a time, per gateway: every replica has one or two under way."""
PROBES_S = 0.2
"""After this the breaker's probes begin."""
DEAD_S = 0.6
BACK_S = 2.6
"""By then the breaker has let a probe through."""
ASK_EVERY_S = 0.002


@dataclass
class Engine:
    """One stand-in on a port of its own."""

    program: Path
    port: int = field(default_factory=free_port)

    def start(self) -> None:
        self._process = subprocess.Popen([self.program, str(self.port)])
        wait_for_port(self.port, self._process)

    def kill(self) -> float:
        """When, by the wall clock."""
        at = time.time()
        self._process.kill()
        self._process.wait()
        return at


@dataclass
class Outcome:
    """What was measured, in milliseconds."""

    last_attempt: list[float] = field(default_factory=list[float])
    attempts: list[int] = field(default_factory=list[int])
    """Failed ones per kill and gateway, without probes."""
    probes: list[int] = field(default_factory=list[int])
    """Until the replica was started again."""
    after_write: list[float] = field(default_factory=list[float])
    """From before the verdict was written to the first answer that shows it, per gateway."""
    after_event: list[float] = field(default_factory=list[float])
    """The same from when the server had it and told it to everybody, which its writer learns a little later."""
    ends: Counter[str] = field(default_factory=Counter[str])


class Client:
    """A connection to one gateway."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def ask(self, body: bytes) -> tuple[int, bytes]:
        self._writer.write(f"{self._head}content-length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(30):
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head[9:12])
            if b"transfer-encoding: chunked" in head:
                return status, await self._chunks()
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
            return status, await self._reader.readexactly(length)

    async def _chunks(self) -> bytes:
        whole = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            whole += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return whole

    def close(self) -> None:
        self._writer.close()


async def stream_on(port: int, key: str, stop: asyncio.Event, ends: Counter[str]) -> None:
    client = Client(port, key)
    await client.connect()
    while not stop.is_set():
        ends[end_of(*await client.ask(STREAM))] += 1
    client.close()


def end_of(status: int, body: bytes) -> str:
    """Raises RuntimeError for a stream that only looks whole."""
    if status != 200:
        return f"status {status}"
    if b'"error":' in body:
        return "error event"
    if b'"finish_reason":"stop"' not in body:
        raise RuntimeError(f"a stream that only looks whole: {body[-200:]!r}")
    return "answered"


def failures(log: Path, replica: str, after: float, until: float) -> list[float]:
    """Milliseconds after `after` of each failed attempt at the replica."""
    found: list[float] = []
    for line in log.read_text().splitlines():
        if "upstream_failed" not in line or replica not in line:
            continue
        at = datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
        if after <= at < until:
            found.append((at - after) * 1000)
    return found


async def kills(
    engines: Sequence[Engine], replicas: Sequence[str], logs: Sequence[Path], count: int, out: Outcome
) -> None:
    for number in range(count):
        engine, replica = engines[number % len(engines)], replicas[number % len(engines)]
        killed = await asyncio.to_thread(engine.kill)
        await asyncio.sleep(DEAD_S)
        for log in logs:
            failed = failures(log, replica, killed, killed + PROBES_S)
            out.attempts.append(len(failed))
            out.probes.append(len(failures(log, replica, killed + PROBES_S, killed + DEAD_S)))
            if failed:
                out.last_attempt.append(failed[-1])
        await asyncio.to_thread(engine.start)
        await asyncio.sleep(BACK_S)


async def under_load(ports: Sequence[int], key: str, work: asyncio.Task[None], ends: Counter[str]) -> None:
    stop = asyncio.Event()
    clients = [asyncio.create_task(stream_on(port, key, stop, ends)) for port in ports for _ in range(CLIENTS)]
    try:
        await work
    finally:
        stop.set()
        await asyncio.gather(*clients)


async def shown(client: Client, status: int) -> float:
    """When an answer of this status first came."""
    while (await client.ask(WHOLE))[0] != status:
        await asyncio.sleep(ASK_EVERY_S)
    return time.monotonic()


async def judge(store: KVStore[VerdictDocumentV1], document: VerdictDocumentV1, verdict: Verdict) -> VerdictDocumentV1:
    change = {
        "aggregateversion": next_version(document.aggregateversion),
        "verdict": verdict,
        "since": datetime.now(UTC),
    }
    changed = document.model_copy(update=change)
    await store.put(changed.replica_id, changed)
    return changed


async def verdicts(ports: Sequence[int], key: str, bus: Bus, count: int, out: Outcome) -> None:
    store = KVStore[VerdictDocumentV1](bus, VERDICTS)
    documents = await read_verdicts(bus)
    for document in documents[1:]:
        await judge(store, document, Verdict.UNHEALTHY)
    document = documents[0]
    clients = [Client(port, key) for port in ports]
    for client in clients:
        await client.connect()
        await shown(client, 200)
    for number in range(count):
        verdict, status = ((Verdict.UNHEALTHY, 503), (Verdict.HEALTHY, 200))[number % 2]
        watching = [asyncio.create_task(shown(client, status)) for client in clients]
        await asyncio.sleep(0.05)
        began = time.monotonic()
        document = await judge(store, document, verdict)
        written = time.monotonic()
        moments = await asyncio.gather(*watching)
        out.after_write += [(at - began) * 1000 for at in moments]
        out.after_event += [(at - written) * 1000 for at in moments]
    for client in clients:
        client.close()


async def read_verdicts(bus: Bus) -> list[VerdictDocumentV1]:
    """By ordinal."""
    stored = await KVStore[VerdictDocumentV1](bus, VERDICTS).values()
    documents = [VerdictDocumentV1.model_validate_json(value) for value in stored.values()]
    return sorted(documents, key=lambda document: document.replica_id)


@asynccontextmanager
async def connected(url: str):
    bus = Bus(SecretStr(url), name="bench")
    running = asyncio.create_task(bus.run())
    async with asyncio.timeout(30):
        await bus.wait_connected()
    yield bus
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def measure(
    place: world.GatewayWorld, engines: Sequence[Engine], ports: Sequence[int], chosen: argparse.Namespace
) -> Outcome:
    out = Outcome()
    logs = [Path(place.folder.name) / f"{port}.log" for port in ports]
    async with connected(place.nats.url) as bus:
        replicas = [document.replica_id for document in await read_verdicts(bus)]
        work = asyncio.create_task(kills(engines, replicas, logs, chosen.kills, out))
        await under_load(ports, place.api_key, work, out.ends)
        await verdicts(ports, place.api_key, bus, chosen.verdicts, out)
    return out


def line(name: str, values: Sequence[float]) -> str:
    ordered = sorted(values)
    if not ordered:
        return f"{name}: nothing"
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99))
    return f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {ordered[-1]:.1f} ms (of {len(ordered)})"


def report(out: Outcome, chosen: argparse.Namespace) -> str:

    def last(values: Sequence[float]) -> list[float]:
        return [max(values[at : at + chosen.gateways]) for at in range(0, len(values), chosen.gateways)]

    return "\n".join(
        (
            f"{chosen.gateways} gateways, {chosen.kills} kills, {chosen.verdicts} changes of a verdict",
            line("kill to the last attempt there, per gateway", out.last_attempt),
            f"attempts there after the kill, per gateway: {dict(sorted(Counter(out.attempts).items()))}",
            f"probes within {DEAD_S} s, per gateway: {dict(sorted(Counter(out.probes).items()))}",
            f"clients' streams: {dict(out.ends)}",
            line("verdict written to the first answer that shows it, per gateway", out.after_write),
            line("the same, last gateway", last(out.after_write)),
            line("writing confirmed to the first answer, last gateway", last(out.after_event)),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateways", type=int, default=3)
    parser.add_argument("--kills", type=int, default=32)
    parser.add_argument("--verdicts", type=int, default=60)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engines = [Engine(world.Tools(Path(folder)).engine) for _ in range(4)]
        for engine in engines:
            engine.start()
        place = world.GatewayWorld(world.Cores(0, 1), [engine.port for engine in engines], keys=1)
        ports = [free_port() for _ in range(chosen.gateways)]
        processes = [gateway(place, port) for port in ports]
        try:
            for port, process in zip(ports, processes, strict=True):
                wait_for_port(port, process)
            time.sleep(3)
            out = asyncio.run(measure(place, engines, ports, chosen))
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)
            for engine in engines:
                engine.kill()
            place.close()
    sys.stdout.write(report(out, chosen) + "\n")


def gateway(place: world.GatewayWorld, port: int) -> "subprocess.Popen[bytes]":
    """With its log beside its spool; it does not wait for a replica, so that each answer shows the table as it is."""
    with (Path(place.folder.name) / f"{port}.log").open("wb") as log:
        return subprocess.Popen(place.command(), env=place.environment(port, replica_wait_s="0"), stderr=log)


if __name__ == "__main__":
    main()
