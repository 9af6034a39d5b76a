"""The usage log on disk: what is appended survives a kill of the process and any absence of NATS."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cortex_gateway import metrics
from cortex_gateway.adapters.spool_segment import PROVISIONAL, Segment, list_segments
from cortex_gateway.domain.usage import envelope_id
from cortex_kit.logging import get_logger

log = get_logger()

FsyncPolicy = Literal["never", "interval", "always"]
SEGMENT_BYTES = 8 * 1024 * 1024
CLEAR_ABOVE_BYTES = 1024 * 1024
LOG_EVERY_S = 10.0


_WRITTEN = metrics.USAGE_RECORDS.labels("written")


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one segment in order; `end` is where the next batch begins."""

    segment: Segment
    records: tuple[bytes, ...]
    end: int


class UsageSpool:
    """See `ports.UsageLog`. Several processes may share the directory: each owns the files that it has locked.

    Raises:
        OSError: from the constructor, when the directory cannot be used.
    """

    def __init__(self, directory: Path, *, max_bytes: int, fsync: FsyncPolicy) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._active = Segment.create(directory)
        self._sealed: deque[Segment] = deque()
        self._sealed_bytes = 0
        self._wake = asyncio.Event()
        self._awake = False
        self._failure: str | None = None
        self._logged_at = -LOG_EVERY_S
        self.adopt_orphans()

    # ports.UsageLog

    def append(self, record: bytes) -> None:
        self._write(record + b"\n")
        if not self._awake:
            self.nudge()

    def hold(self, record: bytes) -> Callable[[bytes], None]:
        self._write(PROVISIONAL + record + b"\n")
        segment = self._active
        segment.holds += 1

        def finish(final: bytes) -> None:
            self.append(final)
            segment.holds -= 1

        return finish

    # For the publisher

    @property
    def pending_bytes(self) -> int:
        """Bytes that NATS does not have yet."""
        return self._active.pending + sum(segment.pending for segment in self._sealed)

    @property
    def segments(self) -> int:
        return len(self._sealed) + 1

    def readiness(self) -> str | None:
        """Why records cannot be written, if so."""
        return self._failure

    async def wait_append(self, timeout_s: float) -> None:
        """Return when something was appended, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def nudge(self) -> None:
        """Let `wait_append` return."""
        self._awake = True
        self._wake.set()

    def next_batch(self) -> Batch | None:
        """The oldest records that are not acknowledged; None when NATS has everything."""
        self._awake = False
        self._wake.clear()
        for segment in (*self._sealed, self._active):
            while segment.pending:
                lines, end = segment.read()
                records = self._publishable(segment, lines)
                if records:
                    return Batch(segment, records, end)
                if end == segment.acknowledged:
                    break
                if not lines:
                    _report_unreadable(segment, segment.pending)
                segment.acknowledged = end
        return None

    def acknowledge(self, batch: Batch) -> None:
        """NATS has stored the batch: files that hold nothing else go away."""
        batch.segment.acknowledged = batch.end
        self.tidy(idle=False)

    def tidy(self, *, idle: bool) -> None:
        """Delete what is published. An active file is cleared when it is large, or when nothing else is to be done."""
        while self._sealed and not self._sealed[0].pending and not self._sealed[0].holds:
            segment = self._sealed.popleft()
            self._sealed_bytes -= segment.size
            segment.remove()
        active = self._active
        if active.size and not active.pending and not active.holds and (idle or active.size > CLEAR_ABOVE_BYTES):
            active.clear()

    def adopt_orphans(self) -> int:
        """Take over the files of processes that died; returns how many."""
        own = {self._active.path, *(segment.path for segment in self._sealed)}
        adopted = 0
        for path in list_segments(self._directory):
            segment = None if path in own else Segment.adopt(path)
            if segment is not None:
                self._sealed.append(segment)
                self._sealed_bytes += segment.size
                adopted += 1
        if adopted:
            log.info("usage_spool_adopted", files=adopted, bytes=self.pending_bytes)
        return adopted

    async def sync(self) -> None:
        """Force what was written to disk, off the event loop, unless the policy says never."""
        if self._fsync == "never":
            return
        for segment in (*self._sealed, self._active):
            if segment.dirty:
                try:
                    await asyncio.to_thread(segment.sync)
                except OSError as error:
                    self._complain("usage_spool_sync_failed", error)

    def close(self) -> None:
        """Give up the files; those with records stay for the next process."""
        for segment in (*self._sealed, self._active):
            if segment.pending or segment.holds:
                segment.release()
            else:
                segment.remove()
        self._sealed.clear()

    def _publishable(self, segment: Segment, lines: list[bytes]) -> tuple[bytes, ...]:
        if not segment.foreign:
            # Our own lines, written whole: only what a machine's crash or another process left is to be examined.
            return tuple(line for line in lines if not line.startswith(PROVISIONAL))
        records: list[bytes] = []
        finals: set[str] | None = None
        for line in lines:
            provisional = line.startswith(PROVISIONAL)
            record = line[len(PROVISIONAL) :] if provisional else line
            record_id = envelope_id(record)
            if record_id is None:
                _report_unreadable(segment, len(line))
                continue
            if provisional:
                finals = segment.final_ids() if finals is None else finals
                if record_id in finals:
                    continue
            records.append(record)
        return tuple(records)

    def _write(self, line: bytes) -> None:
        if self._sealed_bytes + self._active.size + len(line) > self._max_bytes:
            self._drop("usage_spool_full", None)
            return
        try:
            if self._active.size >= SEGMENT_BYTES:
                self._rotate()
            self._active.write(line)
            if self._fsync == "always":
                self._active.sync()
        except OSError as error:
            self._drop("usage_spool_write_failed", error)
            return
        self._failure = None
        _WRITTEN.value += 1

    def _rotate(self) -> None:
        sealed, self._active = self._active, Segment.create(self._directory)
        self._sealed.append(sealed)
        self._sealed_bytes += sealed.size

    def _drop(self, event: str, error: OSError | None) -> None:
        metrics.USAGE_RECORDS.labels("dropped").inc()
        self._failure = "usage records cannot be written to the spool"
        self._complain(event, error)

    def _complain(self, event: str, error: OSError | None) -> None:
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            log.error(
                event, error=None if error is None else os.strerror(error.errno or 0), directory=str(self._directory)
            )


def _report_unreadable(segment: Segment, size: int) -> None:
    """A line that a crash of the machine tore, or that is not ours."""
    metrics.USAGE_RECORDS.labels("unreadable").inc()
    log.error("usage_record_unreadable", file=segment.path.name, size=size)
