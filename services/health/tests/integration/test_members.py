"""Three processes share the replicas on a real NATS; one is killed, one leaves, one freezes."""

import asyncio
import os
import re
import signal
import statistics
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
import pytest
from pydantic import SecretStr

from cortex_contracts.base import ModelId, replica_id
from cortex_contracts.documents import ReplicaDocumentV1, VerdictDocumentV1
from cortex_contracts.enums import Verdict
from cortex_contracts.events import UpstreamSuspectedV1
from cortex_contracts.operations import ProbeRequestV1, ProbeResultV1
from cortex_contracts.streams import REPLICAS, VERDICTS
from cortex_contracts.subjects import RPC_HEALTH_PROBE
from cortex_kit.bus import Bus
from cortex_kit.events import EventPublisher
from cortex_kit.kv import KVStore, KVView
from cortex_kit.provision import provision
from cortex_testing.servers import NatsServer, free_port

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
ENGINES = 24
METRICS = b"llamacpp:requests_processing 0\nllamacpp:prompt_tokens_total 7\n"


def say(line: str) -> None:
    """Figures, for whoever runs this with -s."""
    sys.stdout.write(f"{line}\n")


class Engine:
    """Answers every path; counts what it is asked."""

    def __init__(self, replica: ReplicaDocumentV1, server: asyncio.Server) -> None:
        self.replica = replica
        self.server = server
        self.probed_at: list[float] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /health "):
            self.probed_at.append(asyncio.get_running_loop().time())
        body = METRICS if head.startswith(b"GET /metrics ") else b""
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async def stop(self) -> None:
        self.server.close()
        await self.server.wait_closed()


class Member:
    """A process of the service."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)

    async def engines(self) -> set[str]:
        """Replicas that it shows, which are those it probes."""
        page = (await self.http.get("/metrics")).text
        return set(re.findall(r'^cortex_engine_healthy\{.*replica="([^"]+)"\}', page, re.MULTILINE))

    async def end(self, signum: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signum)
            async with asyncio.timeout(20):
                await self.process.wait()
        await self.http.aclose()


class Stage:
    """The orchestrator's side of replicas, the gateway's side of verdicts."""

    def __init__(self, url: str, secret_key: str) -> None:
        self.url, self.secret_key = url, secret_key
        self.bus = Bus(SecretStr(url), name="test")
        self.replicas = KVStore[ReplicaDocumentV1](self.bus, REPLICAS)
        self.verdicts = KVView(self.bus, VERDICTS, VerdictDocumentV1)
        self.events = EventPublisher(self.bus, source="cortex/gateway/test")
        self.engines: list[Engine] = []
        self.members: list[Member] = []
        self.moves: list[tuple[str, Verdict | None]] = []
        self.verdicts.on_change(self._note)

    def _note(self, change) -> None:
        old, new = (document.verdict if document else None for document in (change.old, change.new))
        if old != new:
            self.moves.append((change.key, new))

    async def add_engine(self, number: int, make: Callable[..., ReplicaDocumentV1]) -> None:
        model = ModelId(f"0197f2a0-0000-7000-8000-{number:012x}")

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await engine.answer(reader, writer)

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        replica = make(id=replica_id(model, 0), model_id=model, endpoint=endpoint, since=datetime.now(UTC))
        engine = Engine(replica, server)
        self.engines.append(engine)
        await self.replicas.put(replica.id, replica)

    async def add_member(self, **changes: float) -> Member:
        port = free_port()
        environment = os.environ | {"CORTEX_NATS_URL": self.url, "CORTEX_SECRET_KEY": self.secret_key}
        environment |= {"CORTEX_HEALTH_PORT": str(port), "CORTEX_HEALTH_PROBE_TIMEOUT_S": "10"}
        environment |= {f"CORTEX_HEALTH_{name.upper()}": str(value) for name, value in changes.items()}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cortex_health", env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        self.members.append(Member(process, port))
        return self.members[-1]

    async def shares(self, members: Iterable[Member]) -> list[set[str]]:
        found: list[set[str]] = []
        for member in members:
            try:
                found.append(await member.engines())
            except httpx.TransportError:
                found.append(set())
        return found

    async def until_shared(self, *members: Member, within: float = 60.0) -> list[set[str]]:
        """Wait until these members have every engine, each exactly once."""
        everything = {engine.replica.id for engine in self.engines}
        async with asyncio.timeout(within):
            while True:
                shares = await self.shares(members)
                if set.union(*shares) == everything and sum(map(len, shares)) == len(everything) and all(shares):
                    return shares
                await asyncio.sleep(0.1)

    async def until(self, condition: Callable[[], bool], *, within: float) -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0.01)
        return loop.time() - started

    def verdict(self, engine: Engine) -> Verdict | None:
        document = self.verdicts.items.get(engine.replica.id)
        return document.verdict if document else None

    def all_healthy(self) -> bool:
        return all(self.verdict(engine) is Verdict.HEALTHY for engine in self.engines)


@asynccontextmanager
async def _running(*loops) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop()) for loop in loops]
        yield
        running_still = set(tasks)
        while running_still:  # nats-py's wait_for may swallow a cancellation on Python 3.11, as the runner knows
            for task in running_still:
                task.cancel()
            _, running_still = await asyncio.wait(running_still, timeout=1)


@pytest.fixture
async def stage(
    nats_server: NatsServer, secret_key: str, make_replica: Callable[..., ReplicaDocumentV1]
) -> AsyncIterator[Stage]:
    stage = Stage(nats_server.url, secret_key)
    async with _running(stage.bus.run, stage.verdicts.run):
        async with asyncio.timeout(20):
            await stage.bus.wait_connected()
            await provision(stage.bus.js)
            await stage.verdicts.wait_synced()
        for number in range(ENGINES):
            await stage.add_engine(number, make_replica)
        yield stage
        for member in stage.members:
            await member.end(signal.SIGKILL)
        for engine in stage.engines:
            await engine.stop()


async def test_three_members_share_the_engines_and_a_dead_one_loses_its_share(stage: Stage):
    first, second, third = [await stage.add_member() for _ in range(3)]
    shares = await stage.until_shared(first, second, third)
    await stage.until(stage.all_healthy, within=30)
    stage.moves.clear()
    loop = asyncio.get_running_loop()

    started = loop.time()
    await asyncio.sleep(4)
    rates = [sum(at >= started for at in engine.probed_at) / 4 for engine in stage.engines]
    say(f"\n{ENGINES} engines, 3 members: shares {sorted(map(len, shares))}, probes per engine and second")
    say(f"  median {statistics.median(rates):.2f}, most {max(rates):.2f} (one prober asks once a second)")
    assert max(rates) <= 1.5, "two members probe the same engine"

    lost = shares[2]
    killed = loop.time()
    await third.end(signal.SIGKILL)
    await stage.until_shared(first, second, within=30)
    gaps = [
        next(at for at in engine.probed_at if at > killed + 0.5) - killed
        for engine in stage.engines
        if engine.replica.id in lost
    ]
    say(f"  kill -9 of one: its {len(lost)} engines probed again after {max(gaps):.2f} s at most")
    assert max(gaps) < 15
    assert stage.moves == [], "a verdict flapped at the hand-over"

    victim = next(engine for engine in stage.engines if engine.replica.id in lost)
    await victim.stop()
    took = await stage.until(lambda: stage.verdict(victim) is Verdict.UNHEALTHY, within=20)
    say(f"  an engine of the dead member that died later was unhealthy after {took:.2f} s")
    assert stage.moves == [(victim.replica.id, Verdict.UNHEALTHY)]
    stage.engines.remove(victim)
    await stage.replicas.delete(victim.replica.id)
    await stage.until(lambda: victim.replica.id not in stage.verdicts.items, within=10)
    stage.moves.clear()

    fourth = await stage.add_member()
    await stage.until_shared(first, second, fourth)
    targets = (await fourth.http.get("/sd/targets")).json()
    assert {group["targets"][0] for group in targets} == {f"127.0.0.1:{one.port}" for one in (first, second, fourth)}
    assert all(group["labels"]["job"] == "cortex-health" for group in targets)
    left = loop.time()
    await second.end(signal.SIGTERM)
    assert second.process.returncode == 0
    await stage.until_shared(first, fourth)
    say(f"  one that leaves: its share was taken over {loop.time() - left:.2f} s after SIGTERM, its own stop included")
    assert stage.moves == [], "a verdict flapped when a member came or left"


async def test_a_frozen_member_that_wakes_up_neither_fights_nor_overwrites(stage: Stage):
    first, second = [await stage.add_member() for _ in range(2)]
    shares = await stage.until_shared(first, second)
    await stage.until(stage.all_healthy, within=30)
    stage.moves.clear()
    second.process.send_signal(signal.SIGSTOP)
    victim = next(engine for engine in stage.engines if engine.replica.id in shares[1])
    await asyncio.sleep(1)
    await victim.stop()
    await stage.until(lambda: stage.verdict(victim) is Verdict.UNHEALTHY, within=30)
    second.process.send_signal(signal.SIGCONT)
    await asyncio.sleep(4)
    assert stage.moves == [(victim.replica.id, Verdict.UNHEALTHY)], "the sleeper spoke of what it no longer knows"
    await stage.until_shared(first, second)


async def test_a_suspicion_reaches_whoever_probes_the_replica_and_a_question_one_answer(stage: Stage):
    slow = {"healthy_interval_s": 600, "doubtful_interval_s": 600}
    members = [await stage.add_member(**slow) for _ in range(3)]
    await stage.until_shared(*members)
    await stage.until(stage.all_healthy, within=30)
    loop = asyncio.get_running_loop()

    async def suspect(engine: Engine) -> float:
        before = len(engine.probed_at)
        event = UpstreamSuspectedV1(
            replica_id=engine.replica.id, model_id=engine.replica.model_id, reason="connection refused"
        )
        await stage.events.publish(event, aggregate_id=engine.replica.id)
        return await stage.until(lambda: len(engine.probed_at) > before, within=30)

    await suspect(stage.engines[0])  # the consumers may still be starting
    times = [await suspect(engine) for engine in stage.engines]
    milliseconds = sorted(time * 1000 for time in times)
    say(f"\nfrom a suspicion to the probe, whoever was told first: median {statistics.median(milliseconds):.0f} ms,")
    say(f"  most {milliseconds[-1]:.0f} ms, {len(times)} suspicions, 3 members")
    assert statistics.median(milliseconds) < 2000

    before = [len(engine.probed_at) for engine in stage.engines]
    result = await stage.bus.request(RPC_HEALTH_PROBE, ProbeRequestV1(), ProbeResultV1, timeout=5)
    assert set(result.replicas) == {engine.replica.id for engine in stage.engines}
    await stage.until(
        lambda: all(len(engine.probed_at) > count for engine, count in zip(stage.engines, before, strict=True)),
        within=10,
    )

    victim = stage.engines[0]
    await victim.stop()
    started = loop.time()
    event = UpstreamSuspectedV1(replica_id=victim.replica.id, model_id=victim.replica.model_id, reason="refused")
    await stage.events.publish(event, aggregate_id=victim.replica.id)
    await stage.until(lambda: stage.verdict(victim) is Verdict.UNHEALTHY, within=20)
    say(f"  one suspicion of a dead engine: unhealthy {(loop.time() - started) * 1000:.0f} ms after it was told")
