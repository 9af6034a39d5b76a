"""Fuzzes the reader: `python services/gguf-inspector/tests/fuzz/fuzz_reader.py --minutes 10 [--seed N] [--json]`.

Broken headers must be refused with a typed error, quickly, in little memory; what is accepted must be describable.
Exits with 1 and writes the file that broke a rule.
"""

import argparse
import json
import resource
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from random import Random, SystemRandom

from cortex_contracts.documents import GgufDocumentV1
from cortex_gguf_inspector.describe import describe_any
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.reader import array_items, read_header
from cortex_testing.binaries import BinaryMissing, demo_gguf
from cortex_testing.gguf import Dtype, GgufBuilder, deepseek2, gemma3, gpt_oss, jamba, llama
from cortex_testing.gguf.mutate import Seed, mutate, seed

MEMORY_LIMIT = 64 * 1024 * 1024
TIME_LIMIT_S = 1.0
DOCUMENT_LIMIT = 256 * 1024
TRACE_EVERY = 40
REPEATS = 3


class SparseSource:
    """A file with a header and zeros after it."""

    def __init__(self, head: bytes, size: int) -> None:
        self.head = head
        self.size = size

    def read_at(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        return self.head[offset : offset + length].ljust(length, b"\0")


def seeds() -> list[Seed]:
    """Small headers of every kind, and the real one of the demo model."""
    adapter = GgufBuilder("llama").text("general.type", "adapter").text("adapter.type", "lora").tensor("a", (32,))
    builders = [
        *(llama(vocabulary=300), llama(vocabulary=300), gpt_oss(2, 4, "1B", vocabulary=64)),
        *(gemma3(layers=3, vocabulary=300), deepseek2(layers=2, vocabulary=64), jamba(vocabulary=300, width=64)),
        GgufBuilder("llama", alignment=64, version=2).tensor("a", (32, 3), Dtype.Q4_1).tensor("b", (3,)),
        *(
            GgufBuilder("clip").tensor("v.patch", (8, 8)),
            adapter,
            GgufBuilder("llama"),
            llama().parts(3)[0],
            llama().parts(3)[1],
        ),
    ]
    found: list[Seed] = []
    for builder in builders:
        head = builder.header()
        found.append(seed(head, len(head) + builder.data_bytes + 64 * (len(builder.tensors) + 1)))
    try:
        real = demo_gguf()
    except BinaryMissing:
        return found
    with real.open("rb") as file:
        return found * 4 + [seed(file.read(1_785_664), real.stat().st_size)]


def run_one(data: bytes, size: int) -> str:
    """The code of the refusal or `accepted`; AssertionError for a broken promise, anything else is a crash."""
    source = SparseSource(data, size)
    try:
        header = read_header(source)
    except GgufError as error:
        return check_offset(error, size)
    try:
        document = describe_any("x.gguf", [header])
    except GgufError as error:
        return check_refusal(error)
    text = document.model_dump_json()
    assert len(text) < DOCUMENT_LIMIT, "a document too large for its bucket"
    assert GgufDocumentV1.model_validate_json(text) == document
    assert header.data_offset >= header.header_size
    for value in header.metadata.values():
        if not isinstance(value, int | float | str) and value.count <= 1000:
            assert len(list(array_items(source, value))) == value.count
    return "accepted"


def check_offset(error: GgufError, size: int) -> str:
    """The reader always says where."""
    assert error.offset is not None, "a refusal of the reader without an offset"
    assert 0 <= error.offset <= size, "an offset outside the file"
    return check_refusal(error)


def check_refusal(error: GgufError) -> str:
    """Typed, short and safe to print."""
    assert GgufErrorCode(error.code) is error.reason
    assert error.message.isprintable(), "a message with control characters"
    assert 10 < len(error.message) < 1000, "a message too long or too short"
    return error.code


def timed(data: bytes, size: int) -> tuple[str, float]:
    """Outcome and the shortest of up to three runs: another program's turn is not the reader's fault."""
    shortest = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        outcome = run_one(data, size)
        shortest = min(shortest, time.perf_counter() - started)
        if shortest < TIME_LIMIT_S:
            return outcome, shortest
    raise AssertionError(f"took {shortest:.1f} s")


def traced(data: bytes, size: int) -> int:
    """Peak of the memory that one run allocates."""
    tracemalloc.start()
    try:
        run_one(data, size)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def high_water() -> int:
    """The most memory this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(duration_s: float, start_seed: int) -> dict[str, object]:
    """Run until the time is over. Raises what a broken file raised, after writing the file."""
    random, corpus = Random(start_seed), seeds()
    for item in corpus:
        assert read_header(SparseSource(item.head, item.size)), "a valid seed was refused"
    codes: Counter[str] = Counter()
    slowest, most, grown, count, end = 0.0, 0, 0, 0, time.monotonic() + duration_s
    while time.monotonic() < end:
        data, size = mutate(random, corpus)
        try:
            before = high_water()
            outcome, took = timed(data, size)
            grown = max(grown, high_water() - before)
            assert grown < MEMORY_LIMIT, f"the process grew by {grown} bytes"
            if count % TRACE_EVERY == 0:
                most = max(most, traced(data, size))
                assert most < MEMORY_LIMIT, f"{most} bytes of memory"
        except BaseException:
            Path(f"fuzz-{start_seed}-{count}.gguf").write_bytes(data)
            raise
        codes[outcome] += 1
        slowest = max(slowest, took)
        count += 1
    return {
        "executions": count,
        "seconds": round(duration_s, 1),
        "seed": start_seed,
        "slowest_ms": round(slowest * 1000, 1),
        "peak_allocated_bytes": most,
        "largest_growth_bytes": grown,
        "process_bytes": high_water(),
        "outcomes": dict(codes.most_common()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1 << 32))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = fuzz(arguments.minutes * 60, arguments.seed)
    lines = [f"{key}: {value}" for key, value in result.items()]
    sys.stdout.write((json.dumps(result) if arguments.json else "\n".join(lines)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
