"""Paths, folders and split sets on a real file system."""

import os
import socket
import time
from pathlib import Path, PurePosixPath

import pytest

from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.inspect import inspect_file, inspect_model
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.paths import ModelsRoot, parse_client_path


def refusal(root: Path, path: str, limits: Limits | None = None) -> GgufError:
    with pytest.raises(GgufError) as caught:
        inspect_model(root, path, limits)
    return caught.value


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("", "invalid_path"),
        ("   ", "invalid_path"),
        ("a\0b.gguf", "invalid_path"),
        ("a\nb.gguf", "invalid_path"),
        ("\ud800.gguf", "invalid_path"),
        ("x" * 5000, "invalid_path"),
        ("x" * 300, "invalid_path"),
        ("/etc/passwd", "path_outside_models_root"),
        ("../secret.gguf", "path_outside_models_root"),
        ("a/../../secret.gguf", "path_outside_models_root"),
        ("a/..", "path_outside_models_root"),
        ("missing.gguf", "file_not_found"),
        ("missing/model.gguf", "file_not_found"),
        ("file.txt/model.gguf", "file_not_found"),
        ("file.txt", "not_gguf"),
        ("/dev/zero", "path_outside_models_root"),
        (".", "no_gguf_in_folder"),
    ],
)
def test_a_bad_path_is_refused(path, code, root):
    (root.parent / "secret.gguf").write_text("secret")
    (root / "file.txt").write_text("hello, this is no model")
    assert refusal(root, path).code == code


@pytest.mark.parametrize("path", ["a.gguf", "./a.gguf", "sub//..hidden/a.gguf"])
def test_harmless_spellings_are_normalised(path):
    assert str(parse_client_path(path)) == str(PurePosixPath(path))


def test_a_model_is_inspected_below_the_root(root, writer):
    writer().model().write(root / "org" / "tiny.gguf")
    result = inspect_model(root, "org//./tiny.gguf")
    assert result.path == result.gguf.path == "org/tiny.gguf"
    assert result.gguf.file_size == (root / "org" / "tiny.gguf").stat().st_size


def test_a_link_inside_the_root_is_followed(root, writer):
    writer().model().write(root / "blobs" / "0a1b")
    (root / "snapshots").mkdir()
    (root / "snapshots" / "tiny.gguf").symlink_to("../blobs/0a1b")
    assert inspect_model(root, "snapshots/tiny.gguf").path == "snapshots/tiny.gguf"


def test_the_root_itself_may_be_a_link(root, writer, tmp_path):
    writer().model().write(root / "tiny.gguf")
    (tmp_path / "alias").symlink_to(root)
    assert inspect_model(tmp_path / "alias", "tiny.gguf").path == "tiny.gguf"


def test_links_out_of_the_root_are_refused(root, writer, tmp_path):
    writer().model().write(tmp_path / "outside" / "secret.gguf")
    (root / "file.gguf").symlink_to(tmp_path / "outside" / "secret.gguf")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "up").symlink_to("..")
    for path in ("file.gguf", "folder/secret.gguf", "folder", "up/outside/secret.gguf"):
        assert refusal(root, path).code == "path_outside_models_root"


def test_a_sibling_whose_name_begins_like_the_root_is_outside(root, writer):
    writer().model().write(root.with_name("models-private") / "x.gguf")
    (root / "x").symlink_to(root.with_name("models-private"))
    assert refusal(root, "x/x.gguf").code == "path_outside_models_root"


def test_a_loop_of_links_is_refused(root):
    (root / "a.gguf").symlink_to("b.gguf")
    (root / "b.gguf").symlink_to("a.gguf")
    assert refusal(root, "a.gguf").code in {"not_a_regular_file", "file_not_found"}


@pytest.mark.timeout(5)
def test_special_files_are_refused_and_never_hang(root):
    os.mkfifo(root / "pipe.gguf")
    with socket.socket(socket.AF_UNIX) as listener:
        previous = Path.cwd()
        os.chdir(root)
        try:
            listener.bind("sock.gguf")
        finally:
            os.chdir(previous)
        for name in ("pipe.gguf", "sock.gguf"):
            assert refusal(root, name).code == "not_a_regular_file"
    if os.path.exists("/dev/zero"):
        with pytest.raises(GgufError) as caught:
            inspect_file("/dev/zero")
        assert caught.value.code == "not_a_regular_file"


def test_an_absent_models_directory_is_said(tmp_path):
    assert refusal(tmp_path / "nowhere", "a.gguf").code == "models_dir_unavailable"


def test_a_folder_with_one_model_is_that_model(root, writer):
    writer().model().write(root / "org" / "tiny.gguf")
    writer(architecture="clip").tensor("a").write(root / "org" / "mmproj-tiny.gguf")
    (root / "org" / "._tiny.gguf").write_text("left by another system")
    (root / "org" / "sub.gguf").mkdir()
    assert inspect_model(root, "org").path == "org/tiny.gguf"
    assert inspect_model(root, "org/").path == "org/tiny.gguf"


def test_a_folder_with_two_models_lists_them(root, writer):
    for name in ("b.gguf", "a.gguf"):
        writer().model().write(root / name)
    error = refusal(root, ".")
    assert error.code == "ambiguous_folder"
    assert "a.gguf, b.gguf" in error.message


def test_a_folder_beyond_the_limit_is_refused(root, writer):
    for n in range(5):
        (root / f"{n}.txt").touch()
    assert refusal(root, ".", Limits(folder_entries=4)).code == "gguf_limit_exceeded"


def test_a_split_set_is_one_model(root, write_split):
    write_split(root / "big", 3)
    result = inspect_model(root, "big/big-00001-of-00003.gguf")
    assert (result.gguf.split_count, result.gguf.tensor_count) == (3, 3)
    assert result.gguf.parameters == 3 * 32 * 32
    assert inspect_model(root, "big") == result


def test_a_later_part_is_refused_and_the_first_named(root, write_split):
    write_split(root, 3)
    error = refusal(root, "big-00002-of-00003.gguf")
    assert error.code == "split_not_first_part"
    assert "big-00001-of-00003.gguf" in error.message


@pytest.mark.parametrize("path", ["big-00001-of-00003.gguf", "."])
def test_a_missing_part_is_named(path, root, write_split):
    write_split(root, 3)[1].unlink()
    error = refusal(root, path)
    assert error.code == "split_incomplete"
    assert "big-00002-of-00003.gguf" in error.message


def test_a_folder_without_the_first_part_names_it(root, write_split):
    write_split(root, 2)[0].unlink()
    error = refusal(root, ".")
    assert error.code == "split_incomplete"
    assert "big-00001-of-00002.gguf" in error.message


def test_a_renamed_or_joined_first_part_is_explained(root, write_split):
    parts = write_split(root, 2)
    (root / "joined.gguf").write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    error = refusal(root, "joined.gguf")
    assert error.code == "split_concatenated"
    assert "cat" in error.message
    (root / "renamed.gguf").write_bytes(parts[0].read_bytes())
    error = refusal(root, "renamed.gguf")
    assert error.code == "split_incomplete"
    assert "names back" in error.message


def test_an_empty_part_is_named(root, write_split):
    write_split(root, 2)[1].write_bytes(b"")
    error = refusal(root, "big-00001-of-00002.gguf")
    assert error.code == "gguf_truncated"
    assert "big-00002-of-00002.gguf" in error.message


def test_parts_of_two_models_are_not_mixed(root, write_split, writer):
    write_split(root, 2)
    stranger = writer(architecture=None).number("split.no", 1, 2).number("split.count", 2, 2)
    stranger.tensor("blk.0.weight", (32, 32), 8).write(root / "big-00002-of-00002.gguf")
    error = refusal(root, "big-00001-of-00002.gguf")
    assert error.code == "gguf_corrupt"
    assert "mixed" in error.message


def test_parts_that_lack_tensors_are_refused(root, writer):
    for part in range(2):
        gguf = writer(architecture=None if part else "llama").number("split.no", part, 2).number("split.count", 2, 2)
        gguf.number("split.tensors.count", 5, 5).tensor(f"t{part}").write(root / f"x-0000{part + 1}-of-00002.gguf")
    assert refusal(root, "x-00001-of-00002.gguf").code == "gguf_corrupt"


def test_a_part_with_another_number_inside_is_refused(root, write_split):
    parts = write_split(root, 3)
    parts[1].write_bytes(parts[2].read_bytes())
    error = refusal(root, "big-00001-of-00003.gguf")
    assert error.code == "gguf_corrupt"


@pytest.mark.parametrize("count", [0, 1])
def test_a_merged_file_keeps_its_split_keys_and_is_one_model(count, root, writer):
    writer().model().number("split.count", count, 2).number("split.no", 0, 2).write(root / "merged.gguf")
    assert inspect_model(root, "merged.gguf").gguf.split_count == 1


def test_65535_claimed_parts_cost_nothing(root, writer):
    name = "x-00001-of-65535.gguf"
    writer().number("split.count", 65535, 2).number("split.no", 0, 2).tensor("a").write(root / name)
    started = time.monotonic()
    assert refusal(root, name).code == "gguf_limit_exceeded"
    assert time.monotonic() - started < 1


def test_a_link_out_of_the_root_as_a_part_is_refused(root, write_split, tmp_path):
    parts = write_split(root, 2)
    moved = tmp_path / "moved.gguf"
    parts[1].rename(moved)
    parts[1].symlink_to(moved)
    assert refusal(root, "big-00001-of-00002.gguf").code == "path_outside_models_root"


@pytest.mark.slow
def test_a_file_that_grows_while_it_is_read_is_refused(root, writer, monkeypatch):
    path = writer().model().write(root / "growing.gguf")
    pread = os.pread

    def growing(descriptor: int, length: int, offset: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"more")
        return pread(descriptor, length, offset)

    monkeypatch.setattr("cortex_gguf_inspector.window.os.pread", growing)
    assert refusal(root, "growing.gguf").code == "gguf_truncated"


def test_a_file_that_shrinks_while_it_is_read_is_refused(root, writer, monkeypatch):
    path = writer().array("k", 8, ["x" * 1000] * 2000).tensor("a").write(root / "shrinking.gguf")
    pread = os.pread

    def shrinking(descriptor: int, length: int, offset: int) -> bytes:
        data = pread(descriptor, length, offset)
        os.truncate(path, 300_000)
        return data

    monkeypatch.setattr("cortex_gguf_inspector.window.os.pread", shrinking)
    assert refusal(root, "shrinking.gguf").code == "gguf_truncated"


def test_any_file_of_the_machine_can_be_inspected_for_the_command(tmp_path, writer, monkeypatch):
    path = writer().model().write(tmp_path / "a" / "tiny.gguf")
    monkeypatch.chdir(tmp_path)
    assert inspect_file("a/tiny.gguf").path == str(path)
    assert inspect_file(path.parent).gguf.path == str(path)
    with pytest.raises(GgufError, match=f"{tmp_path}/none.gguf does not exist$"):
        inspect_file("none.gguf")


def test_no_descriptor_is_left_open(root, writer):
    writer().model().write(root / "a.gguf")
    (root / "bad.gguf").write_text("nope, nothing here")
    models = ModelsRoot(root)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    for path in ("a.gguf", "bad.gguf", "missing/x.gguf", "."):
        try:
            inspect_model(root, path)
        except GgufError:
            continue
    assert models.exists(PurePosixPath("a.gguf"))
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before
