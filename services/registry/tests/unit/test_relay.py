"""The relay against fakes that can fail: order, retries, failover."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cortex_contracts.base import KeyId
from cortex_contracts.documents import Document
from cortex_contracts.events import KeyRevokedV1
from cortex_kit.clock import SystemClock
from cortex_kit.errors import TransientError
from cortex_registry.domain.outbox import Aggregate, Backlog, OutboxLine
from cortex_registry.errors import DatabaseUnavailableError
from cortex_registry.handlers.relay import Relay, RelayTiming

KEY = KeyId("k")


def line(seq: int, key: str = "k") -> OutboxLine:
    return OutboxLine(
        seq=seq,
        event_id=f"event-{seq}",
        aggregate=Aggregate.KEY,
        aggregate_id=key,
        version=seq,
        event=KeyRevokedV1(key_id=KEY, name="x"),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@dataclass
class World:
    """Database, bucket, stream and provisioning in one recording fake."""

    lines: list[OutboxLine] = field(default_factory=list)
    rows: dict[Aggregate, dict[str, Document]] = field(default_factory=lambda: {kind: {} for kind in Aggregate})
    kv: dict[Aggregate, dict[str, Document | None]] = field(default_factory=lambda: {kind: {} for kind in Aggregate})
    said: list[str] = field(default_factory=list)
    generation: int = 1
    sessions: int = 0
    fail: list[tuple[str, Exception]] = field(default_factory=list)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def _say(self, what: str) -> None:
        for index, (when, error) in enumerate(self.fail):
            if what.startswith(when):
                del self.fail[index]
                raise error
        self.said.append(what)

    @asynccontextmanager
    async def open(self) -> AsyncIterator["World"]:
        self.sessions += 1
        yield self

    async def lead(self) -> bool:
        return True

    async def pending(self, limit: int) -> Sequence[OutboxLine]:
        return self.lines[:limit]

    async def documents(self, aggregate: Aggregate, ids: Collection[str] | None = None) -> Mapping[str, Document]:
        rows = self.rows[aggregate]
        return dict(rows) if ids is None else {key: rows[key] for key in ids if key in rows}

    async def settle(self, lines: Sequence[OutboxLine]) -> None:
        self._say(f"settle {[one.seq for one in lines]}")
        self.lines = [one for one in self.lines if one not in lines]

    async def backlog(self) -> Backlog:
        return Backlog(len(self.lines), 0.0)

    async def raise_version(self, aggregate: Aggregate, aggregate_id: str, above: int) -> None:
        self.rows[aggregate][aggregate_id] = Document(aggregateversion=above + 1)

    async def wait(self, timeout: float) -> None:
        self.idle.set()
        await asyncio.sleep(0)

    async def stored(self, aggregate: Aggregate) -> Mapping[str, Document | None]:
        self._say(f"look {aggregate.value}")
        return dict(self.kv[aggregate])

    async def put(self, aggregate: Aggregate, key: str, document: Document) -> None:
        self._say(f"put {key} {document.aggregateversion}")
        self.kv[aggregate][key] = document

    async def delete(self, aggregate: Aggregate, key: str) -> None:
        self._say(f"delete {key}")
        self.kv[aggregate].pop(key, None)

    async def publish(self, one: OutboxLine) -> None:
        self._say(f"publish {one.seq}")

    async def run(self) -> None:
        """Relay until there is nothing left to do."""
        timing = RelayTiming(poll_s=0.001, batch_size=2, retry_max_s=0.001)
        relay = Relay(self, self, self, self, clock=SystemClock(), timing=timing)
        task = asyncio.ensure_future(relay.run())
        await asyncio.wait([task, asyncio.ensure_future(self._wait_idle())], return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _wait_idle(self) -> None:
        await self.idle.wait()
        while self.lines or self.fail:
            await asyncio.sleep(0)


async def test_documents_are_written_before_their_events_and_lines_settled_after() -> None:
    world = World(lines=[line(1), line(2, "gone"), line(3)])
    world.rows[Aggregate.KEY]["k"] = Document(aggregateversion=3)
    await world.run()
    assert world.said == [
        "look model", "look key", "put k 3",
        "put k 3", "delete gone", "publish 1", "publish 2", "settle [1, 2]",
        "put k 3", "publish 3", "settle [3]",
    ]  # fmt: skip


async def test_a_failed_publication_stops_the_batch_and_keeps_the_order() -> None:
    world = World(lines=[line(1), line(2)], fail=[("publish 2", TransientError("away"))])
    world.rows[Aggregate.KEY]["k"] = Document(aggregateversion=2)
    await world.run()
    assert [what for what in world.said if not what.startswith(("look", "put"))] == [
        "publish 1",
        "settle [1]",
        "publish 2",
        "settle [2]",
    ]
    assert world.sessions == 1, "the lock is kept while NATS is away"


async def test_a_lost_session_is_opened_again_and_lines_are_published_again() -> None:
    world = World(lines=[line(1)], fail=[("settle", DatabaseUnavailableError("gone"))])
    world.rows[Aggregate.KEY]["k"] = Document(aggregateversion=1)
    await world.run()
    assert world.said.count("publish 1") == 2
    assert world.sessions == 2


async def test_nothing_is_written_before_the_buckets_are_known_to_exist() -> None:
    world = World(generation=0)
    world.rows[Aggregate.KEY]["k"] = Document(aggregateversion=1)
    await world.run()
    assert world.said == []


async def test_a_failed_comparison_is_made_again() -> None:
    world = World(fail=[("look key", TransientError("away"))])
    world.rows[Aggregate.KEY]["k"] = Document(aggregateversion=1)
    world.kv[Aggregate.KEY]["stray"] = None
    await world.run()
    assert world.kv[Aggregate.KEY] == {"k": Document(aggregateversion=1)}
