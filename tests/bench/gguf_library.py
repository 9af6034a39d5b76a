"""How fast the library is scanned and a split set is merged: `python tests/bench/gguf_library.py`.

The files are made first: a sparse gpt-oss-120b in three parts (63 GB apparent), and 2.25 GiB that are really there.
"""

import os
import struct
import tempfile
import time
from pathlib import Path

from cortex_gguf_inspector.library.scan import Library
from cortex_gguf_inspector.merge.job import MergeOptions, merge_file
from cortex_testing.gguf.fixtures import gpt_oss_120b
from cortex_testing.gguf_split import split_gguf

TENSORS, ROWS, COLUMNS = 24, 6144, 4096
WAYS = {
    "in the kernel, then checked": MergeOptions(),
    "in the kernel": MergeOptions(check=False),
    "through a buffer": MergeOptions(check=False, in_kernel=False),
}


def large_file(path: Path) -> Path:
    """A valid file with 96 MiB a tensor."""
    size = ROWS * COLUMNS * 4
    key, value = b"general.architecture", b"llama"
    head = struct.pack("<4sIQQQ", b"GGUF", 3, TENSORS, 1, len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    for number in range(TENSORS):
        name = f"blk.{number}.ffn_up.weight".encode()
        head += struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, COLUMNS, ROWS, 0, number * size)
    with path.open("wb") as file:
        file.write(head.ljust(-(-len(head) // 32) * 32, b"\0"))
        for _ in range(TENSORS):
            file.write(os.urandom(1 << 20) * (size >> 20))
    return path


def bench_scan(folder: Path) -> None:
    gpt_oss_120b(vocabulary=201_088, merges=446_000).write_split(folder / "oss", "gpt-oss-120b", 3)
    library = Library(folder)
    for what in ("first scan", "nothing changed"):
        started = time.perf_counter()
        snapshot = library.scan()
        seconds = time.perf_counter() - started
        states = [(entry.path, entry.state.value, entry.size) for entry in snapshot.entries]
        print(f"{what:<30} {seconds * 1000:8.2f} ms  {states}")


def bench_merge(folder: Path) -> None:
    source = large_file(folder / "source.gguf")
    parts = split_gguf(source, folder / "set", 3)
    source.unlink()
    os.sync()
    for what, options in WAYS.items():
        merged = merge_file(parts[0], folder / "out.gguf", options=options)
        mib = merged.size / (1 << 20)
        print(f"{what:<30} {merged.seconds:8.2f} s   {mib / merged.seconds:6.0f} MiB/s of {mib:.0f} MiB")
        os.unlink(folder / "out.gguf")
        os.sync()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        bench_scan(Path(temporary) / "library")
        bench_merge(Path(temporary))
