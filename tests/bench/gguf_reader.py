"""How fast the GGUF reader is beside `gguf.GGUFReader`, on the same files, in one run.

    .venv/bin/python tests/bench/gguf_reader.py [FILE ...]

Without files: the demo model and gpt-oss-120b as a sparse file with its real vocabulary and merges. Every reader runs in its
own process, so that memory can be told apart; times are the best of several runs (the reference reader: one run). Both tell
the same: every metadata value and every tensor, but for long arrays, which ours reads when asked for.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from cortex_testing.binaries import demo_gguf
from cortex_testing.gguf import gpt_oss_120b

OURS = """
import json, resource, sys, time
from cortex_gguf_inspector.reader import read_header
from cortex_gguf_inspector.window import FileSource
from cortex_gguf_inspector.describe import describe
base, best = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 9e9
for _ in range(15):
    started = time.perf_counter()
    with open(sys.argv[1], "rb") as file:
        header = read_header(FileSource(file.fileno()))
    document = describe("x", [header])
    best = min(best, time.perf_counter() - started)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) * 1024
print(json.dumps({"seconds": best, "bytes": grown, "header": header.header_size}))
"""
THEIRS = """
import json, resource, sys, time
from gguf import GGUFReader
base, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
reader = GGUFReader(sys.argv[1])
took = time.perf_counter() - started
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) * 1024
print(json.dumps({"seconds": took, "bytes": grown}))
"""


def measure(program: str, path: Path) -> dict[str, float]:
    """Run a reader in its own process."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=600, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sparse = Path(folder) / "gpt-oss-120b.gguf"
        files = arguments.files or [demo_gguf(), gpt_oss_120b(vocabulary=201_088, merges=446_189).write(sparse)]
        print("| file | header MB | Cortex ms | Cortex MB | GGUFReader ms | GGUFReader MB | times faster |")
        print("|---|---|---|---|---|---|---|")
        for path in files:
            ours, theirs = measure(OURS, path), measure(THEIRS, path)
            ratio = theirs["seconds"] / ours["seconds"]
            cells = (
                f"{path.stem}, {path.stat().st_size / 1e9:.2f} GB",
                f"{ours['header'] / 1e6:.1f}",
                *(f"{ours['seconds'] * 1e3:.1f}", f"{ours['bytes'] / 1e6:.1f}"),
                *(f"{theirs['seconds'] * 1e3:.0f}", f"{theirs['bytes'] / 1e6:.0f}", f"{ratio:.0f}"),
            )
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
