import os
from pathlib import Path

import pytest

from cortex_contracts.envelope import BATCH_CONTENT_TYPE, join_batch, split_batch
from cortex_gateway.adapters.spool_segment import Segment, list_segments
from cortex_gateway.adapters.usage_publisher import MESSAGE_BYTES, UsagePublisher, split_messages
from cortex_gateway.adapters.usage_spool import UsageSpool
from cortex_gateway.domain.usage import envelope_id
from cortex_kit.errors import TransientError


def record(number: int, **extra: object) -> bytes:
    return b'{"id":"%d","n":"%s"}' % (number, str(extra).encode())


def open_spool(folder: Path, max_bytes: int = 1 << 20) -> UsageSpool:
    return UsageSpool(folder, max_bytes=max_bytes, fsync="never")


def abandon(spool: UsageSpool) -> None:
    """What the kernel does at a kill: the lock goes, the file stays."""
    spool._active.release()


def drain(spool: UsageSpool) -> list[str]:
    ids: list[str] = []
    while (batch := spool.next_batch()) is not None:
        ids += [envelope_id(record) or "" for record in batch.records]
        spool.acknowledge(batch)
    return ids


async def test_records_come_back_in_order_and_then_are_gone(tmp_path):
    spool = open_spool(tmp_path)
    for number in range(3):
        spool.append(record(number))
    assert spool.pending_bytes > 0
    assert drain(spool) == ["0", "1", "2"]
    assert spool.pending_bytes == 0
    spool.tidy(idle=True)
    assert os.stat(list_segments(tmp_path)[0]).st_size == 0
    spool.close()
    assert list_segments(tmp_path) == []


async def test_a_batch_that_is_not_acknowledged_comes_again(tmp_path):
    spool = open_spool(tmp_path)
    spool.append(record(1))
    first = spool.next_batch()
    assert spool.next_batch() == first


async def test_what_a_killed_process_left_is_adopted_but_not_what_a_living_one_holds(tmp_path):
    dead, alive = open_spool(tmp_path), open_spool(tmp_path)
    dead.append(record(1))
    alive.append(record(2))
    abandon(dead)
    heir = open_spool(tmp_path)
    assert drain(heir) == ["1"]
    assert drain(alive) == ["2"]
    assert len(list_segments(tmp_path)) == 2


async def test_a_torn_last_line_is_skipped(tmp_path):
    dead = open_spool(tmp_path)
    dead.append(record(1))
    dead._active.write(b'{"id":"2"')
    abandon(dead)
    heir = open_spool(tmp_path)
    assert drain(heir) == ["1"]
    heir.tidy(idle=True)
    assert len(list_segments(tmp_path)) == 1


async def test_a_provisional_record_gives_way_to_the_final_one(tmp_path):
    spool = open_spool(tmp_path)
    finish = spool.hold(record(1, estimated=True))
    spool.append(record(2))
    assert drain(spool) == ["2"]
    spool.tidy(idle=True)
    assert os.stat(list_segments(tmp_path)[0]).st_size > 0
    finish(record(1, estimated=False))
    assert drain(spool) == ["1"]
    spool.tidy(idle=True)
    assert os.stat(list_segments(tmp_path)[0]).st_size == 0


async def test_a_provisional_record_is_published_when_its_process_died(tmp_path):
    dead = open_spool(tmp_path)
    dead.hold(record(1))
    finish = dead.hold(record(2))
    finish(record(2, final=True))
    abandon(dead)
    assert drain(open_spool(tmp_path)) == ["1", "2"]


async def test_it_is_bounded_and_says_so(tmp_path):
    spool = open_spool(tmp_path, max_bytes=100)
    for number in range(20):
        spool.append(record(number))
    assert spool.readiness() is not None
    kept = drain(spool)
    assert 0 < len(kept) < 20
    spool.tidy(idle=True)
    spool.append(record(99))
    assert spool.readiness() is None


async def test_large_files_are_rotated(tmp_path, monkeypatch):
    monkeypatch.setattr("cortex_gateway.adapters.usage_spool.SEGMENT_BYTES", 50)
    spool = open_spool(tmp_path)
    for number in range(10):
        spool.append(record(number))
    assert spool.segments > 2
    assert drain(spool) == [str(number) for number in range(10)]
    assert spool.segments == 1


async def test_the_publisher_repeats_a_batch_with_the_same_ids(tmp_path):
    spool = open_spool(tmp_path)
    spool.append(record(1))
    spool.append(record(2))
    published: list[tuple[str, bytes]] = []

    async def publish(_subject: str, payload: bytes, event_id: str, *, content_type: str | None = None) -> None:
        assert content_type == BATCH_CONTENT_TYPE
        published.append((event_id, payload))
        if len(published) == 1:
            raise TransientError("away")

    publisher = UsagePublisher(spool, publish)
    batch = spool.next_batch()
    assert batch is not None
    assert not await publisher._publish_batch(batch)
    spool.append(record(3))
    assert await publisher._publish_batch(publisher._unfinished or batch)
    assert [event_id for event_id, _ in published] == ["1-2-2", "1-2-2"]
    assert split_batch(published[1][1]) == (b'{"id":"1","n":"{}"}', b'{"id":"2","n":"{}"}')
    assert drain(spool) == ["3"]


def test_messages_hold_many_records_in_order_and_never_more_than_the_stream_takes():
    records = [b"x" * size for size in (1, 30_000, 17_000, 3_000, 60_000, 5)] + [b"y"] * 200
    messages = list(split_messages(records))
    assert [one for message in messages for one in message] == records
    assert all(len(message) == 1 or len(join_batch(message)) <= MESSAGE_BYTES + 64 for message in messages)
    assert len(messages) < 10
    assert list(split_messages([])) == []


def test_a_lost_file_is_nobody_s(tmp_path):
    assert Segment.adopt(tmp_path / "usage-none.wal") is None


def test_an_unusable_directory_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"(?i)exists|directory"):
        UsageSpool(tmp_path / "file", max_bytes=100, fsync="never")
