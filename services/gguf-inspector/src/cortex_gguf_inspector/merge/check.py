"""Compares a file with what a plan makes."""

from collections.abc import Callable, Generator

from cortex_gguf_inspector.limits import MIB
from cortex_gguf_inspector.merge.copy import BUFFER_BYTES, SourceEnded, read_exactly, same_range
from cortex_gguf_inspector.merge.plan import MergePlan
from cortex_gguf_inspector.merge.sources import OpenSources
from cortex_gguf_inspector.window import FileSource

SAMPLES = 32
SAMPLE_BYTES = 64 * 1024


class Checker:
    """Reads a file from its first to its last byte and compares it with the parts. `equal` holds after `run`."""

    def __init__(self, plan: MergePlan, sources: OpenSources, target: int, seen: Callable[[bytes], None]) -> None:
        self._plan = plan
        self._sources = sources
        self._target = target
        self._seen = seen
        self.equal = False

    def run(self) -> Generator[int]:
        """Yields the bytes done. Stops early at a difference. Raises SourceEnded and OSError."""
        if FileSource(self._target).size != self._plan.size or not self._header():
            return
        done = len(self._plan.header)
        for piece in self._plan.pieces:
            if not self._zeros(done, piece.target):
                return
            for start in range(0, piece.length, 8 * BUFFER_BYTES):
                places = (piece.offset + start, piece.target + start)
                length = min(8 * BUFFER_BYTES, piece.length - start)
                source = self._sources.descriptor(piece.source)
                if not same_range(source, self._target, places, length, self._seen):
                    return
                yield piece.target + start + length
            done = piece.target + piece.length
        self.equal = self._zeros(done, self._plan.size)
        yield self._plan.size

    def _header(self) -> bool:
        header = read_exactly(self._target, len(self._plan.header), 0)
        self._seen(header)
        return header == self._plan.header

    def _zeros(self, start: int, end: int) -> bool:
        for place in range(start, end, BUFFER_BYTES):
            gap = read_exactly(self._target, min(BUFFER_BYTES, end - place), place)
            self._seen(gap)
            if any(gap):
                return False
        return True


def is_what_the_plan_makes(plan: MergePlan, sources: OpenSources, target: int) -> bool:
    """True when size, header and evenly spaced samples agree: the file was made of these parts, or of equal ones."""
    file = FileSource(target)
    if file.size != plan.size or file.read_at(0, len(plan.header)) != plan.header:
        return False
    everything = plan.size <= 4 * MIB
    step = max(plan.size // SAMPLES, 1)
    for piece in plan.pieces:
        offsets = range(0, piece.length, SAMPLE_BYTES if everything else step)
        for start in {*offsets, max(0, piece.length - SAMPLE_BYTES)}:
            length = min(SAMPLE_BYTES, piece.length - start)
            places = (piece.offset + start, piece.target + start)
            try:
                if not same_range(sources.descriptor(piece.source), target, places, length, lambda _: None):
                    return False
            except SourceEnded:
                return False
    return True
