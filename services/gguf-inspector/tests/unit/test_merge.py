"""Merging: layout, targets, hostile sets, file systems that lack something."""

import errno
import os
import struct
from pathlib import Path, PurePosixPath

import pytest

from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.inspect import inspect_file
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.merge.copy import Copier
from cortex_gguf_inspector.merge.job import MergeOptions, merge_file, merge_prepared
from cortex_gguf_inspector.merge.layout import metadata_entries
from cortex_gguf_inspector.merge.prepare import prepare, target_of
from cortex_gguf_inspector.paths import ModelsRoot


def refusal(part: Path, output: Path | None = None) -> GgufError:
    with pytest.raises(GgufError) as caught:
        merge_file(part, output)
    return caught.value


def test_metadata_of_every_type_are_carried_over_as_they_are(tmp_path, writer):
    for part in range(2):
        gguf = writer(architecture="llama" if part == 0 else None)
        if part == 0:
            gguf.text("general.name", "N").number("a.f", 0.5, 6).number("a.b", True, 7).number("a.q", 1 << 40, 10)
            gguf.array("a.strings", 8, ["x", "", "yy"]).array("a.bytes", 0, [1, 2, 3]).array("a.none", 5, [])
            gguf.text("a.raw", b"\xff\xfe not text")
        gguf.number("split.no", part, 2).number("split.count", 2, 2).number("split.tensors.count", 2, 5)
        gguf.tensor(f"t{part}", (32, 3), 8).write(tmp_path / f"m-0000{part + 1}-of-00002.gguf")
    first = (tmp_path / "m-00001-of-00002.gguf").read_bytes()
    merged = Path(merge_file(tmp_path / "m-00001-of-00002.gguf").path).read_bytes()
    before, after = dict(metadata_entries(first)), dict(metadata_entries(merged))
    assert list(after) == [*(key for key in before if key != b"split.count"), b"split.count"]
    assert {key: raw for key, raw in after.items() if key != b"split.count"} == {
        key: raw for key, raw in before.items() if key != b"split.count"
    }
    assert after[b"split.count"].endswith(struct.pack("<IH", 2, 0))


def test_an_announced_alignment_is_kept(tmp_path, writer):
    for part in range(2):
        gguf = writer(architecture="llama" if part == 0 else None)
        if part == 0:
            gguf.alignment = 128
            gguf.number("general.alignment", 128)
        gguf.number("split.no", part, 2).number("split.count", 2, 2).number("split.tensors.count", 4, 5)
        for number in range(2):
            gguf.tensor(f"t{part}.{number}", (33,), 0)
        gguf.write(tmp_path / f"m-0000{part + 1}-of-00002.gguf")
    merged = merge_file(tmp_path / "m-00001-of-00002.gguf")
    assert inspect_file(merged.path).gguf.tensor_count == 4


def test_an_alignment_that_would_fill_the_disk_is_refused(tmp_path, write_split, monkeypatch):
    parts = write_split(tmp_path, 2)
    monkeypatch.setattr("cortex_gguf_inspector.merge.prepare.MAX_ALIGNMENT", 16)
    assert refusal(parts[0]).code == "gguf_limit_exceeded"


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_file_is_nothing_to_merge(count, tmp_path, writer):
    writer().model().number("split.count", count, 2).write(tmp_path / "one.gguf")
    assert refusal(tmp_path / "one.gguf").code == "not_a_split_set"


def test_65535_claimed_parts_are_refused_at_once(tmp_path, writer):
    path = tmp_path / "x-00001-of-65535.gguf"
    writer().number("split.count", 65535, 2).number("split.no", 0, 2).tensor("a").write(path)
    assert refusal(path).code == "gguf_limit_exceeded"


def test_a_folder_with_a_set_and_what_was_merged_of_it_is_that_set(tmp_path, write_split):
    write_split(tmp_path, 3)
    assert not merge_file(tmp_path).existed
    assert merge_file(tmp_path).existed


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("../out.gguf", "path_outside_models_root"),
        ("/etc/out.gguf", "path_outside_models_root"),
        ("out.txt", "invalid_path"),
        ("out-00001-of-00002.gguf", "invalid_path"),
    ],
)
def test_a_target_that_cannot_be(output, code, tmp_path, write_split):
    write_split(tmp_path, 2)
    models = ModelsRoot(tmp_path)
    prepared = prepare(models, "big-00001-of-00002.gguf", Limits())
    with pytest.raises(GgufError) as caught:
        target_of(models, prepared, output, None)
    assert caught.value.code == code


def test_a_target_folder_that_leads_out_of_the_root_is_refused(tmp_path, write_split):
    root = tmp_path / "models"
    write_split(root, 2)
    (root / "out").symlink_to(tmp_path)
    models = ModelsRoot(root)
    prepared = prepare(models, "big-00001-of-00002.gguf", Limits())
    with pytest.raises(GgufError) as caught:
        merge_prepared(models, prepared, PurePosixPath("out/x.gguf"), Limits(), MergeOptions())
    assert caught.value.code == "path_outside_models_root"


def test_a_link_in_the_place_of_the_target_or_the_growing_file_is_not_followed(tmp_path, write_split):
    parts = write_split(tmp_path / "set", 2)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    growing = tmp_path / "set" / ".big.gguf.merging"
    growing.symlink_to(victim)
    assert refusal(parts[0]).code == "write_failed"
    growing.unlink()
    (tmp_path / "set" / "big.gguf").symlink_to(victim)
    assert refusal(parts[0]).code in {"write_failed", "merge_target_exists"}
    assert victim.read_bytes() == b"precious"


def test_the_cache_folder_is_named_by_content(tmp_path, write_split):
    write_split(tmp_path / "one", 2)
    write_split(tmp_path / "two", 2)
    models = ModelsRoot(tmp_path)
    targets = {
        str(target_of(models, prepare(models, folder, Limits()), None, PurePosixPath("cache/merged")))
        for folder in ("one", "two")
    }
    assert len(targets) == 1
    assert (tmp_path / targets.pop()).parent.is_dir()


def test_without_hard_links_the_name_is_given_once_too(tmp_path, write_split, monkeypatch):
    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("cortex_gguf_inspector.merge.files.os.link", no_links)
    parts = write_split(tmp_path, 2)
    merged = merge_file(parts[0])
    assert inspect_file(merged.path).gguf.tensor_count == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "big-00001-of-00002.gguf",
        "big-00002-of-00002.gguf",
        "big.gguf",
    ]


def test_a_name_taken_meanwhile_is_not_replaced(tmp_path, write_split):
    parts = write_split(tmp_path, 2)

    def take(phase: str, done: int, total: int) -> None:
        (tmp_path / "big.gguf").write_bytes(b"somebody else's")

    with pytest.raises(GgufError) as caught:
        merge_file(parts[0], options=MergeOptions(progress=take))
    assert caught.value.code == "merge_target_exists"
    assert (tmp_path / "big.gguf").read_bytes() == b"somebody else's"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_published_file_survives_a_kill_between_link_and_clean_up(tmp_path, write_split):
    parts = write_split(tmp_path, 2)
    target = Path(merge_file(parts[0]).path)
    content = target.read_bytes()
    os.link(target, tmp_path / ".big.gguf.merging")  # what such a kill leaves
    target.rename(tmp_path / "mine.gguf")
    parts[0].touch()
    merge_file(parts[0])
    assert (tmp_path / "mine.gguf").read_bytes() == target.read_bytes() == content
    assert not (tmp_path / ".big.gguf.merging").exists()


@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_kernel_that_does_not_copy_is_no_failure(code, tmp_path, write_split, monkeypatch):
    def refuse(*_: object) -> int:
        raise OSError(code, "no")

    monkeypatch.setattr("cortex_gguf_inspector.merge.copy.os.copy_file_range", refuse)
    parts = write_split(tmp_path, 3)
    assert inspect_file(merge_file(parts[0]).path).gguf.tensor_count == 3


def test_a_part_that_changes_meanwhile_is_noticed(tmp_path, write_split, monkeypatch):
    parts = write_split(tmp_path, 3)
    copy = Copier.copy

    def growing(self: Copier, *arguments: int) -> int:
        parts[2].write_bytes(b"something else")
        return copy(self, *arguments)

    monkeypatch.setattr(Copier, "copy", growing)
    assert refusal(parts[0]).code == "gguf_truncated"
    assert sorted(path.name for path in tmp_path.iterdir()) == [part.name for part in parts]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_typed_and_leaves_nothing(code, tmp_path, write_split, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(code, "full")

    parts = write_split(tmp_path, 3)
    monkeypatch.setattr(Copier, "copy", full)
    assert refusal(parts[0]).code == "disk_full"
    assert sorted(path.name for path in tmp_path.iterdir()) == [part.name for part in parts]
