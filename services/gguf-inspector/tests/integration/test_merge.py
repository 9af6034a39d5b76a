"""Merging on real files: the real model, kills, full disks, the real reference tool."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.inspect import inspect_file
from cortex_gguf_inspector.merge.job import MergeOptions, merge_file
from cortex_testing.gguf_split import GgufFile, split_gguf

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

MERGE_SLOWLY = """
import sys, time
from cortex_gguf_inspector.merge.job import MergeOptions, merge_file
def progress(phase, done, total):
    print(phase, done, flush=True)
    time.sleep(0.02)
merge_file(sys.argv[1], options=MergeOptions(progress=progress, in_kernel=False, sync_bytes=8 << 20))
"""


@pytest.fixture
def parts(smollm2_gguf: Path, tmp_path: Path) -> list[Path]:
    return split_gguf(smollm2_gguf, tmp_path / "set", 3, prefix="smollm2")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("in_kernel", [True, False])
@pytest.mark.parametrize("metadata_first", [False, True])
def test_a_merged_set_equals_the_single_file_tensor_by_tensor(smollm2_gguf, tmp_path, in_kernel, metadata_first):
    parts = split_gguf(smollm2_gguf, tmp_path, 3, metadata_first=metadata_first)
    seen: list[tuple[str, int, int]] = []
    options = MergeOptions(progress=lambda *told: seen.append(told), in_kernel=in_kernel)
    merged = merge_file(parts[2], options=options)
    whole, result = GgufFile(smollm2_gguf), GgufFile(Path(merged.path))
    assert result.tensor_data() == whole.tensor_data()
    added = {"split.no", "split.tensors.count", "split.count"}
    assert {key: value for key, value in result.entries.items() if key not in added} == whole.entries
    assert result.entries["split.count"].endswith(b"\0\0")
    assert merged.sha256 == sha256(tmp_path / "model.gguf")
    assert inspect_file(merged.path).gguf.parameters == 134_515_008
    assert [phase for phase, _, _ in seen] == sorted((phase for phase, _, _ in seen), key=["copy", "check"].index)
    assert seen[-1][1] == seen[-1][2] == merged.size == (tmp_path / "model.gguf").stat().st_size
    assert names(tmp_path) == {*(part.name for part in parts), "model.gguf"}


def test_the_second_merge_finds_the_first_and_never_replaces_anything(parts, tmp_path):
    first = merge_file(parts[0])
    before = os.stat(first.path)
    again = merge_file(parts[0].parent / "smollm2-00002-of-00003.gguf")
    assert again.existed
    assert os.stat(first.path).st_mtime_ns == before.st_mtime_ns
    target = Path(first.path)
    target.write_bytes(b"precious")
    with pytest.raises(GgufError) as caught:
        merge_file(parts[0])
    assert caught.value.code == "merge_target_exists"
    assert target.read_bytes() == b"precious"
    other = merge_file(parts[0], tmp_path / "other.gguf")
    assert other.path == str(tmp_path / "other.gguf")


def test_one_changed_byte_in_the_target_is_not_the_merged_file(parts):
    target = Path(merge_file(parts[0]).path)
    with target.open("r+b") as file:
        file.seek(-(1 << 20), os.SEEK_END)
        at = file.tell()
        old = file.read(1 << 20)
        file.seek(at)
        file.write(bytes(byte ^ 1 for byte in old))
    with pytest.raises(GgufError, match="there already"):
        merge_file(parts[0])


def start_slow_merge(part: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", MERGE_SLOWLY, str(part)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("phase", "lines"), [("copy", 1), ("copy", 8), ("check", 1)])
def test_killed_in_the_middle_it_goes_on_and_never_shows_half_a_file(parts, smollm2_gguf, phase, lines):
    folder, target = parts[0].parent, parts[0].parent / "smollm2.gguf"
    process = start_slow_merge(parts[0])
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += line.startswith(phase)
        if seen == lines:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists()
    assert ".smollm2.gguf.merging" in names(folder)
    merged = merge_file(parts[0])
    if lines > 1 or phase == "check":
        assert merged.resumed_at >= 8 << 20
    assert GgufFile(target).tensor_data() == GgufFile(smollm2_gguf).tensor_data()
    assert names(folder) == {*(part.name for part in parts), "smollm2.gguf"}


def test_a_journal_that_lies_costs_a_restart_and_no_wrong_file(parts, smollm2_gguf):
    target = parts[0].parent / "smollm2.gguf"
    stopped = [False]

    def progress(phase: str, done: int, total: int) -> None:
        stopped[0] = True

    with pytest.raises(GgufError) as caught:
        merge_file(parts[0], options=MergeOptions(progress=progress, stop=lambda: stopped[0]))
    assert caught.value.code == "merge_stopped"
    journal = parts[0].parent / ".smollm2.gguf.merging.json"
    told = json.loads(journal.read_text())
    partial = parts[0].parent / ".smollm2.gguf.merging"
    os.truncate(partial, told["total"])
    journal.write_text(json.dumps(told | {"done": told["total"]}))
    merged = merge_file(parts[0])
    assert merged.resumed_at == 0
    assert GgufFile(target).tensor_data() == GgufFile(smollm2_gguf).tensor_data()


def test_other_parts_under_the_same_names_start_anew(parts, smollm2_gguf):
    process = start_slow_merge(parts[0])
    assert process.stdout is not None
    for _ in range(6):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    split_gguf(smollm2_gguf, parts[0].parent, 3, prefix="smollm2")
    assert merge_file(parts[0]).resumed_at == 0


def test_two_processes_do_not_write_one_file(parts):
    process = start_slow_merge(parts[0])
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(GgufError) as caught:
        merge_file(parts[0])
    assert caught.value.code == "merge_running"
    process.stdout.close()
    process.kill()
    process.wait()


def test_too_little_space_is_said_before_anything_is_written(parts, monkeypatch):
    class Tiny:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr("cortex_gguf_inspector.merge.files.os.fstatvfs", lambda _: Tiny)
    with pytest.raises(GgufError) as caught:
        merge_file(parts[0])
    assert caught.value.code == "disk_full"
    assert "MiB" in caught.value.message
    assert names(parts[0].parent) == {part.name for part in parts}


def limited_merge(part: Path, limit: int) -> subprocess.CompletedProcess[str]:
    code = "import sys; from cortex_gguf_inspector.merge.job import merge_file; merge_file(sys.argv[1])"
    return subprocess.run(
        [sys.executable, "-c", code, str(part)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(parts):
    done = limited_merge(parts[0], 40 << 20)
    assert done.returncode == 1
    assert "MiB are free" in done.stderr
    assert names(parts[0].parent) == {part.name for part in parts}


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real file system of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("announced", [True, False])
def test_a_really_full_disk_is_a_typed_error_and_leaves_nothing(parts, small_disk, announced, monkeypatch):
    if not announced:  # somebody else fills the disk after we have looked

        class Huge:
            f_bavail, f_frsize = 1 << 40, 4096

        monkeypatch.setattr("cortex_gguf_inspector.merge.files.os.fstatvfs", lambda _: Huge)
    with pytest.raises(GgufError) as caught:
        merge_file(parts[0], small_disk / "model.gguf")
    assert caught.value.code == "disk_full"
    assert names(small_disk) == set()


def test_merging_onto_another_file_system_works(writer, tmp_path, small_disk, write_split):
    parts = write_split(tmp_path / "few", 4)
    merged = merge_file(parts[0], small_disk / "model.gguf")
    assert inspect_file(merged.path).gguf.tensor_count == 4


@pytest.mark.parametrize("pattern", ["{}.part{}of{}", "{}.parta{}", "{}-split-{}"])
def test_pieces_of_bytes_are_joined_and_checked(smollm2_gguf, tmp_path, pattern):
    data = smollm2_gguf.read_bytes()
    step = len(data) // 3 + 1
    pieces: list[Path] = []
    for number in range(3):
        letter = "abc"[number]
        name = pattern.format("m.gguf", number + 1 if "of" in pattern else letter, 3)
        pieces.append(tmp_path / name)
        pieces[-1].write_bytes(data[number * step : (number + 1) * step])
    merged = merge_file(pieces[1])
    assert merged.sha256 == hashlib.sha256(data).hexdigest()
    (tmp_path / "m.gguf").unlink()
    pieces[2].unlink()
    with pytest.raises(GgufError) as caught:
        merge_file(pieces[0])
    assert caught.value.code == "split_incomplete"


def test_what_cat_made_is_taken_apart(parts, smollm2_gguf, tmp_path):
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(GgufError) as caught:
        inspect_file(wrong)
    assert caught.value.code == "split_concatenated"
    assert "cortex gguf merge" in caught.value.message
    merged = merge_file(wrong)
    assert merged.layout == "concatenated"
    assert GgufFile(Path(merged.path)).tensor_data() == GgufFile(smollm2_gguf).tensor_data()


def reference_tool() -> Path:
    folder = os.environ.get("CORTEX_TEST_LLAMA_TOOLS")
    if not folder:
        pytest.skip("CORTEX_TEST_LLAMA_TOOLS does not name a folder with llama-gguf-split")
    return Path(folder) / "llama-gguf-split"


@pytest.mark.parametrize("extra", [[], ["--no-tensor-first-split"]])
def test_our_merge_of_the_reference_split_is_the_reference_merge_byte_by_byte(smollm2_gguf, tmp_path, extra):
    tool = reference_tool()
    command = [tool, "--split", "--split-max-tensors", "100", *extra, smollm2_gguf, tmp_path / "ref"]
    subprocess.run(command, check=True, capture_output=True)
    parts = sorted(tmp_path.glob("ref-*.gguf"))
    assert len(parts) >= 3
    subprocess.run([tool, "--merge", parts[0], tmp_path / "theirs.gguf"], check=True, capture_output=True)
    ours = merge_file(parts[0], tmp_path / "ours.gguf")
    assert sha256(Path(ours.path)) == sha256(tmp_path / "theirs.gguf")


def test_our_split_is_the_reference_split_byte_by_byte(smollm2_gguf, tmp_path):
    tool = reference_tool()
    count = -(-len(GgufFile(smollm2_gguf).tensors) // 3)
    command = [tool, "--split", "--split-max-tensors", str(count), smollm2_gguf, tmp_path / "theirs"]
    subprocess.run(command, check=True, capture_output=True)
    for ours, theirs in zip(split_gguf(smollm2_gguf, tmp_path, 3), sorted(tmp_path.glob("theirs-*")), strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
