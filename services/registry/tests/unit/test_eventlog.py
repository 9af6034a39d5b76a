"""The event log's decisions: patterns, what may be stored, what progress is overtaken, what a client is told."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from cortex_kit.errors import DomainError, PermanentError, TransientError
from cortex_registry.domain.eventlog import (
    EventFilter,
    EventPage,
    LoggedEvent,
    NewEvent,
    check_patterns,
    named_topics,
    new_event,
    topic_matches,
    without_overtaken,
)
from cortex_registry.entrypoints.event_stream import encode
from cortex_registry.errors import UnavailableError
from cortex_registry.handlers.eventlog import EventBatcher
from cortex_registry.handlers.eventlog_feed import EventFeed, LiveEvents, Notice

START = datetime(2026, 1, 1, tzinfo=UTC)


def raw(number: int = 1, **changes: Any) -> bytes:
    values = {
        "id": f"event-{number}",
        "source": "cortex/registry/a",
        "type": "model.created.v1",
        "subject": "m",
        "time": START.isoformat(),
        "data": {"model_id": "m", "name": "x"},
    }
    return json.dumps(values | changes).encode()


def pulling(number: int, second: float, replica: str = "m-0") -> NewEvent:
    data = {"replica_id": replica, "image": "i", "current_bytes": number}
    time = (START + timedelta(seconds=second)).isoformat()
    return new_event(raw(number, type="container.pulling.v1", time=time, data=data))


def logged(sequence: int, **changes: Any) -> LoggedEvent:
    event = new_event(raw(sequence))
    values = {name: getattr(event, name) for name in LoggedEvent.__dataclass_fields__ if name != "sequence"}
    return replace(LoggedEvent(sequence=sequence, **values), **changes)


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("model.created", "model.created", True),
        ("model.created", "model.updated", False),
        ("model.*", "model.updated", True),
        ("*.created", "key.created", True),
        ("model.*", "model", False),
        ("model.*", "model.a.b", False),
        ("model.>", "model.a.b", True),
        ("model.>", "model", False),
        ("*", "model.created", True),
        (">", "model.created", True),
        ("*.*", "model.created", True),
        ("container", "container.failed", False),
    ],
)
def test_a_pattern_matches_word_by_word(pattern: str, topic: str, expected: bool) -> None:
    assert topic_matches(check_patterns([pattern]), topic) is expected


@pytest.mark.parametrize(
    "pattern", ["", "Model.created", "model..created", ".model", "model.", "mod el", "a;b", "model.>.x", "%", "*" * 300]
)
def test_what_is_no_pattern_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(DomainError) as caught:
        check_patterns([pattern])
    assert caught.value.code == "invalid_pattern"


def test_a_version_in_a_pattern_is_dropped_and_a_repetition_too() -> None:
    assert check_patterns(["model.created.v1", "model.created"]) == ("model.created",)


def test_progress_goes_to_those_only_who_name_it() -> None:
    known = ["container.failed", "container.pulling", "gguf.merging", "model.created"]
    assert named_topics(["*"], known) == ("container.failed", "model.created")
    assert named_topics(["container.*", "container.pulling"], known) == ("container.failed", "container.pulling")


@pytest.mark.parametrize(
    "changes", [{"id": "a.b"}, {"id": "x\r\ny"}, {"id": "x" * 65}, {"type": "Bad Type"}, {"type": "usage"}]
)
def test_an_id_or_a_type_that_could_break_a_header_is_never_stored(changes: dict[str, str]) -> None:
    with pytest.raises(PermanentError):
        new_event(raw(**changes))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"id": 1}', raw(data="text"), raw(time="yesterday")])
def test_what_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationError):
        new_event(body)


def test_text_that_the_database_cannot_hold_is_replaced_not_refused() -> None:
    event = new_event(raw(data={"log_tail": ["a\x00b"], "model_id": "m"}, correlationid="x" * 500))
    assert event.data["log_tail"] == ["a\ufffdb"]
    assert len(event.correlation_id or "") == 128


def test_an_event_of_a_newer_service_is_kept_as_it_came() -> None:
    event = new_event(raw(type="moon.landed.v7", data={"crew": [1, {"a": None}]}))
    assert (event.topic, event.data) == ("moon.landed", {"crew": [1, {"a": None}]})


def test_of_progress_in_one_batch_the_last_per_window_stays() -> None:
    batch = [pulling(1, 0), pulling(2, 1), new_event(raw(9)), pulling(3, 29.9), pulling(4, 30), pulling(5, 2, "m-1")]
    assert [event.event_id for event in without_overtaken(batch)] == ["event-9", "event-3", "event-4", "event-5"]


def test_an_event_twice_in_one_batch_is_one() -> None:
    assert len(without_overtaken([new_event(raw(1)), new_event(raw(1))])) == 1


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (EventFilter(), True),
        (EventFilter(topics=("model.*",)), True),
        (EventFilter(topics=("key.*",)), False),
        (EventFilter(model_id="m"), True),
        (EventFilter(model_id="n"), False),
        (EventFilter(replica_id="m-0"), False),
        (EventFilter(source="registry"), True),
        (EventFilter(source="cortex/registry/a"), True),
        (EventFilter(source="health"), False),
        (EventFilter(since=START), True),
        (EventFilter(since=START + timedelta(seconds=1)), False),
    ],
)
def test_a_filter_passes_what_it_names(wanted: EventFilter, expected: bool) -> None:
    assert wanted.wants(logged(1)) is expected


def test_an_event_of_the_stream_is_one_line_of_json() -> None:
    text = encode(logged(7, data={"reason": "a\nb\r\n\u2028"})).decode()
    fields = [line.partition(": ") for line in text.removesuffix("\n\n").split("\n")]
    assert [name for name, _, _ in fields] == ["id", "event", "data"]
    assert json.loads(fields[2][2])["data"]["reason"] == "a\nb\r\n\u2028"
    assert json.loads(fields[2][2])["sequence"] == "7"


class Log:
    """The table, as a list."""

    def __init__(self) -> None:
        self.rows: list[LoggedEvent] = []
        self.away = False
        self.poison: str | None = None
        self.stored: list[list[str]] = []
        self.hint = asyncio.Event()

    async def append(self, events: Sequence[NewEvent]) -> int:
        if self.away:
            raise TransientError("away")
        if any(event.event_id == self.poison for event in events):
            raise PermanentError("poison")
        self.stored.append([event.event_id for event in events])
        return len(events)

    async def page(self, wanted: EventFilter, *, after: int | None, newest_first: bool, limit: int) -> EventPage:
        if self.away:
            raise UnavailableError("database_unavailable", "away")
        head = self.rows[-1].sequence if self.rows else 0
        found = [row for row in self.rows if row.sequence > (after or 0) and wanted.wants(row)][:limit]
        return EventPage(found, head, 0)

    async def outdated(self, *, max_age_s: float, max_rows: int) -> int:
        return 0

    async def prune(self, through: int, limit: int) -> int:
        return 0

    async def head(self) -> int:
        return self.rows[-1].sequence if self.rows else 0

    async def after(self, sequence: int, limit: int) -> Sequence[LoggedEvent]:
        return [row for row in self.rows if row.sequence > sequence][:limit]

    async def wait(self, timeout: float) -> None:
        await self.hint.wait()
        self.hint.clear()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Log"]:
        yield self

    def add(self, *sequences: int) -> None:
        self.rows += [logged(sequence) for sequence in sequences]
        self.hint.set()


async def test_one_event_that_can_never_be_stored_keeps_no_other_out() -> None:
    log = Log()
    log.poison = "event-2"
    batcher = EventBatcher(log, batch_size=10, wait_s=0.01)
    running = asyncio.create_task(batcher.run())
    results = await asyncio.gather(*(batcher.add(raw(number), number) for number in (3, 2, 1)), return_exceptions=True)
    running.cancel()
    assert [type(result) for result in results] == [type(None), PermanentError, type(None)]
    assert log.stored == [["event-1"], ["event-3"]], "in the order of the stream"


async def test_with_the_database_away_the_event_is_asked_for_again() -> None:
    log = Log()
    log.away = True
    batcher = EventBatcher(log, batch_size=10, wait_s=0.01)
    running = asyncio.create_task(batcher.run())
    with pytest.raises(TransientError):
        await batcher.add(raw(), 1)
    running.cancel()


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_a_client_gets_what_it_missed_then_what_happens_each_once() -> None:
    log = Log()
    log.add(1, 2, 3)
    feed = EventFeed(log, keep=10)
    live = LiveEvents(log, feed, max_clients=1)
    running = asyncio.create_task(feed.run())
    await settle()
    stream = live.follow(EventFilter(), await live.start(1))
    got: list[int] = []

    async def read() -> None:
        async for item in stream:
            assert isinstance(item, LoggedEvent)
            got.append(item.sequence)

    reading = asyncio.create_task(read())
    await settle()
    assert got == [2, 3]
    log.add(4, 7)
    await settle()
    assert got == [2, 3, 4, 7]
    with pytest.raises(UnavailableError, match="Too many"):
        await live.start(None)
    for task in (reading, running):
        task.cancel()
    await asyncio.gather(reading, running, return_exceptions=True)
    await stream.aclose()
    assert await live.start(None) == 7


async def test_a_client_that_falls_behind_is_told_and_ended() -> None:
    log = Log()
    feed = EventFeed(log, keep=5)
    live = LiveEvents(log, feed, max_clients=1)
    running = asyncio.create_task(feed.run())
    await settle()
    stream = live.follow(EventFilter(), await live.start(None))
    first = asyncio.create_task(anext(stream))
    await settle()
    log.add(1)
    item = await first
    assert isinstance(item, LoggedEvent)
    log.add(*range(2, 20))
    await settle()
    last = await anext(stream)
    assert last == Notice("overrun", "This client was too slow. Resume at the last id.", last=True)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    running.cancel()


async def test_a_cursor_that_the_log_never_gave_is_refused() -> None:
    log = Log()
    log.add(5)
    live = LiveEvents(log, EventFeed(log, keep=5), max_clients=1)
    with pytest.raises(DomainError) as caught:
        await live.start(6)
    assert caught.value.code == "unknown_cursor"
