"""Merges in the background: joined, announced, failed once, shared by two instances."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cortex_contracts.events import Event
from cortex_contracts.library import MergeRequestV1, MergeState
from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.merge.jobs import Job, MergeJobs, MergeSettings

pytestmark = [pytest.mark.integration]
REQUEST = MergeRequestV1(path="big-00001-of-00003.gguf")


class Announcer:
    def __init__(self) -> None:
        self.seen: list[Event] = []

    async def try_publish(self, event: Event, *, aggregate_id: str) -> bool:
        self.seen.append(event)
        return True


@asynccontextmanager
async def running(*instances: MergeJobs):
    tasks = [asyncio.create_task(one.run()) for one in instances]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_done(jobs: MergeJobs) -> Job:
    async with asyncio.timeout(15):
        while (job := await jobs.request(REQUEST)).state not in (MergeState.DONE, MergeState.FAILED):
            await asyncio.sleep(0.02)
    return job


async def test_two_instances_that_are_asked_at_once_make_one_file_and_tell_once(tmp_path, write_split):
    write_split(tmp_path, 3)
    announcer = Announcer()
    one, two = (MergeJobs(tmp_path, MergeSettings(), announcer) for _ in range(2))
    first, second = await asyncio.gather(one.request(REQUEST), two.request(REQUEST))
    assert first.id == second.id
    async with running(one, two):
        await until_done(one)
        await until_done(two)
        await asyncio.sleep(0.2)
    assert [event.SUBJECT for event in announcer.seen].count("gguf.merged") == 1
    assert not [event for event in announcer.seen if event.SUBJECT == "gguf.rejected"]


async def test_a_failure_is_told_once_and_then_tried_anew(tmp_path, write_split, monkeypatch):
    write_split(tmp_path, 3)
    announcer = Announcer()
    jobs = MergeJobs(tmp_path, MergeSettings(), announcer)

    class Tiny:
        f_bavail, f_frsize = 0, 4096

    async with running(jobs):
        with monkeypatch.context() as patch:
            patch.setattr("cortex_gguf_inspector.merge.files.os.fstatvfs", lambda _: Tiny)
            job = await until_done(jobs)
            assert job.error is not None
            assert job.error.code == "disk_full"
        assert [event.SUBJECT for event in announcer.seen][-1] == "gguf.rejected"
        assert (await until_done(jobs)).state is MergeState.DONE
    assert (tmp_path / "big.gguf").exists()


async def test_a_stopped_service_leaves_the_merge_to_the_next_one(tmp_path, write_split, monkeypatch):
    write_split(tmp_path, 3)
    announcer = Announcer()
    jobs = MergeJobs(tmp_path, MergeSettings(), announcer)
    await jobs.request(REQUEST)
    jobs.stop()
    again = MergeJobs(tmp_path, MergeSettings(), announcer)
    async with running(again):
        assert (await until_done(again)).state is MergeState.DONE


async def test_a_finished_file_is_found_without_a_job(tmp_path, write_split):
    write_split(tmp_path, 3)
    jobs = MergeJobs(tmp_path, MergeSettings(), Announcer())
    async with running(jobs):
        await until_done(jobs)
    (tmp_path / "big.gguf").write_bytes(b"other")
    fresh = MergeJobs(tmp_path, MergeSettings(), Announcer())
    with pytest.raises(GgufError) as caught:
        await fresh.request(REQUEST)
    assert caught.value.code == "merge_target_exists"
    fresh.stop()
    with pytest.raises(GgufError):
        await MergeJobs(None, MergeSettings(), Announcer()).request(REQUEST)
    assert Path(tmp_path / "big.gguf").read_bytes() == b"other"
