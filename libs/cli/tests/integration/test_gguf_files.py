"""`cortex gguf scan`, `merge` and `verify` on real files, without any service."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cortex_testing.gguf_split import GgufFile, split_gguf

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
CORTEX = Path(sys.executable).parent / "cortex"


def cortex(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    command = [str(CORTEX), "gguf", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path, smollm2_gguf: Path) -> Path:
    split_gguf(smollm2_gguf, tmp_path / "set", 3, prefix="m")
    return tmp_path


def test_scan_merge_verify(folder: Path, smollm2_gguf: Path) -> None:
    assert "ready 3/3" in cortex("scan", folder).stdout
    merged = json.loads(cortex("merge", folder / "set", "--json").stdout)
    assert merged["path"] == str(folder / "set" / "m.gguf")
    assert GgufFile(folder / "set" / "m.gguf").tensor_data() == GgufFile(smollm2_gguf).tensor_data()
    assert "is there already" in cortex("merge", folder / "set").stdout
    verified = json.loads(cortex("verify", merged["path"], "--sha256", merged["sha256"], "--json").stdout)
    assert verified["ok"]
    shown = json.loads(cortex("scan", folder, "--json").stdout)
    assert [entry["recommended"] for entry in shown["entries"]] == [False, True]  # one file before three


def test_refusals_are_one_line_and_an_exit_code(folder: Path) -> None:
    os.truncate(folder / "set" / "m-00002-of-00003.gguf", 3_000_000)
    assert "m-00002-of-00003.gguf" in cortex("verify", folder / "set", expect=1).stderr
    assert "gguf_truncated" in cortex("merge", folder / "set", expect=1).stderr
    (folder / "set" / "m-00002-of-00003.gguf").unlink()
    assert "split_incomplete" in cortex("merge", folder / "set", expect=1).stderr
    assert "incomplete 2/3" in cortex("scan", folder).stdout
    assert "file_not_found" in cortex("scan", folder / "nowhere", expect=1).stderr


def test_an_interrupted_merge_says_how_to_go_on_and_does(tmp_path: Path) -> None:
    size = 384 << 20
    for number in (1, 2):  # pieces of a large file: only its header is written, the rest are holes
        piece = tmp_path / f"big.gguf.part{number}of2"
        piece.touch()
        os.truncate(piece, size)
    header = b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") + (0).to_bytes(8, "little")
    tensor = (1).to_bytes(8, "little") + b"t" + (1).to_bytes(4, "little") + (size // 2 - 64).to_bytes(8, "little")
    with (tmp_path / "big.gguf.part1of2").open("r+b") as file:
        file.write(header + tensor + (0).to_bytes(4, "little") + (0).to_bytes(8, "little"))
    command = [str(CORTEX), "gguf", "merge", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / ".big.gguf.merging"
    while process.poll() is None and not (partial.exists() and partial.stat().st_size > 1 << 20):
        pass
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=50)
    assert process.returncode == 130, told
    assert "goes on where it was" in told
    assert not (tmp_path / "big.gguf").exists()
    done = json.loads(cortex("merge", tmp_path, "--no-check", "--json").stdout)
    assert done["resumed_at"] > 0
    assert (tmp_path / "big.gguf").stat().st_size == 2 * size
