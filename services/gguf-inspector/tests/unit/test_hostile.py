"""The hostile corpus: every file is refused with a typed error that says where and why, at once and in little memory.

The first table holds the 25 cases that the engine itself refuses, and their neighbours; the others are what real people and
real disks do to files. All of it is made here.
"""

import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cortex_gguf_inspector.describe import describe, describe_any
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.inspect import inspect_model
from cortex_gguf_inspector.limits import MIB, Limits
from cortex_gguf_inspector.reader import read_header
from cortex_gguf_inspector.window import BytesSource
from cortex_testing.gguf import Dtype, GgufBuilder, Kind, llama

pytestmark = pytest.mark.slow  # CPU and memory of each case are measured

U8, U16, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 2, 4, 5, 6, 7, 8, 9, 10
TIME_LIMIT_S = 1.0
MEMORY_LIMIT = 64 * MIB


def bounded(read: Callable[[], object]) -> GgufError:
    """The refusal of a reading that took neither long nor much. CPU time: other programs are not our fault."""
    started = time.thread_time()
    with pytest.raises(GgufError) as caught:
        read()
    assert time.thread_time() - started < TIME_LIMIT_S
    tracemalloc.start()
    with pytest.raises(GgufError):
        read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY_LIMIT
    error = caught.value
    assert error.code in {code.value for code in GgufErrorCode}
    assert error.message.isprintable()
    assert len(error.message) > 10
    return error


def refusal(data: bytes, limits: Limits | None = None) -> GgufError:
    """As `bounded`, of a file in memory."""
    return bounded(lambda: describe("x.gguf", [read_header(BytesSource(data), limits)]))


def broken_head(writer: Any, **fields: Any) -> bytes:
    gguf = writer().model()
    for name, value in fields.items():
        setattr(gguf, name, value)
    return gguf.bytes()


def huge_key(writer: Any) -> bytes:
    gguf = writer(architecture=None)
    return gguf.raw(gguf.pack("Q", 1 << 63) + b"key").bytes()


def unknown_value_type(writer: Any) -> bytes:
    gguf = writer()
    return gguf.raw(gguf.string("key") + gguf.pack("II", 99, 1)).bytes()


HOSTILE = {
    "empty": (lambda w: b"", "gguf_truncated"),
    "truncated magic": (lambda w: b"GG", "gguf_truncated"),
    "magic only": (lambda w: b"GGUF", "gguf_truncated"),
    "other magic": (lambda w: b"ABCD" * 20, "not_gguf"),
    "version 1": (lambda w: broken_head(w, version=1), "gguf_unsupported_version"),
    "version 4": (lambda w: broken_head(w, version=4), "gguf_unsupported_version"),
    "version 0": (lambda w: broken_head(w, version=0), "gguf_unsupported_version"),
    "big-endian": (lambda w: w(order=">").model().bytes(), "gguf_big_endian"),
    "n_kv 2^62": (lambda w: broken_head(w, entry_count=1 << 62), "gguf_limit_exceeded"),
    "n_kv -1": (lambda w: broken_head(w, entry_count=-1), "gguf_corrupt"),
    "n_tensors 2^40": (lambda w: broken_head(w, tensor_count=1 << 40), "gguf_limit_exceeded"),
    "n_tensors -1": (lambda w: broken_head(w, tensor_count=-1), "gguf_corrupt"),
    "n_tensors beyond the file": (lambda w: broken_head(w, tensor_count=60_000), "gguf_truncated"),
    "key length 2^63": (huge_key, "gguf_corrupt"),
    "string 2^40": (lambda w: w().text("key", "short", 1 << 40).bytes(), "gguf_corrupt"),
    "string beyond the file": (lambda w: w().text("key", "short", 1 << 20).bytes(), "gguf_truncated"),
    "array 2^60": (lambda w: w().array("key", U8, [1], 1 << 60).bytes(), "gguf_corrupt"),
    "string array 2^60": (lambda w: w().array("key", STRING, ["a"], 1 << 60).bytes(), "gguf_corrupt"),
    "array beyond the file": (lambda w: w().array("key", U64, [1], 100_000).bytes(), "gguf_truncated"),
    "too many array elements": (lambda w: w().array("key", U8, [1], 1 << 29).bytes(), "gguf_limit_exceeded"),
    "nested array": (lambda w: w().array("key", ARRAY, [1]).bytes(), "gguf_corrupt"),
    "array of type 99": (lambda w: w().array("key", 99, [1]).bytes(), "gguf_corrupt"),
    "type 99": (unknown_value_type, "gguf_corrupt"),
    "duplicate key": (lambda w: w().text("key", "a").text("key", "b").bytes(), "gguf_corrupt"),
    "empty key": (lambda w: w().text("", "a").bytes(), "gguf_corrupt"),
    "alignment 0": (lambda w: w().number("general.alignment", 0).bytes(), "gguf_corrupt"),
    "alignment 3": (lambda w: w().number("general.alignment", 3).bytes(), "gguf_corrupt"),
    "alignment string": (lambda w: w().text("general.alignment", "32").bytes(), "gguf_corrupt"),
    "alignment u64": (lambda w: w().number("general.alignment", 32, U64).bytes(), "gguf_corrupt"),
    "5 dimensions": (lambda w: w().tensor("a", (1, 1, 1, 1, 1)).bytes(), "gguf_corrupt"),
    "dimension product": (lambda w: w().tensor("a", (1 << 31, 1 << 31, 1 << 31)).bytes(), "gguf_corrupt"),
    "dimension product hidden by a zero": (lambda w: w().tensor("a", (1 << 40, 1 << 40, 0)).bytes(), "gguf_corrupt"),
    "negative dimension": (lambda w: w().tensor("a", ((1 << 64) - 32,)).bytes(), "gguf_corrupt"),
    "65-byte name": (lambda w: w().tensor("n" * 65).bytes(), "gguf_corrupt"),
    "64-byte name": (lambda w: w().tensor("n" * 64).bytes(), "gguf_corrupt"),
    "removed tensor type": (lambda w: w().tensor("a", (32,), 4).bytes(), "gguf_corrupt"),
    "unknown tensor type": (lambda w: w().tensor("a", (32,), 43).bytes(), "gguf_corrupt"),
    "row not a multiple of the block": (lambda w: w().tensor("a", (33,), 8).bytes(), "gguf_corrupt"),
    "offset gap": (lambda w: w().tensor("a").tensor("b", (32,), 0, 256).bytes(), "gguf_corrupt"),
    "overlapping tensors": (lambda w: w().tensor("a").tensor("b", (32,), 0, 0).bytes(), "gguf_corrupt"),
    "duplicate tensor": (lambda w: w().tensor("a").tensor("a").bytes(), "gguf_corrupt"),
    "data missing": (lambda w: broken_head(w, missing_data=1000), "gguf_truncated"),
    "data far beyond the file": (lambda w: w().tensor("a", (1 << 40,)).bytes(), "gguf_truncated"),
    "no architecture": (lambda w: w(architecture=None).tensor("a").bytes(), "gguf_corrupt"),
    "architecture is a number": (
        lambda w: w(architecture=None).number("general.architecture", 1).tensor("a").bytes(),
        "gguf_corrupt",
    ),
    "architecture with escapes": (lambda w: w(architecture="\x1b[31mx").tensor("a").bytes(), "gguf_corrupt"),
    "long chat template": (
        lambda w: w().text("tokenizer.chat_template", "x" * (2 << 20)).tensor("a").bytes(),
        "gguf_limit_exceeded",
    ),
    "projector": (lambda w: w(architecture="clip").tensor("a").bytes(), "gguf_not_a_model"),
    "adapter": (lambda w: w().text("general.type", "adapter").tensor("a").bytes(), "gguf_not_a_model"),
    "vocabulary only": (lambda w: w().array("tokenizer.ggml.tokens", STRING, ["a"]).bytes(), "gguf_not_a_model"),
}


WRONG_FILES = {
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n", "Git LFS"),
    "HTML page": (b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title>", "web page"),
    "HTML page with a byte order mark": (b"\xef\xbb\xbf<html lang=en>", "web page"),
    "JSON error": (b'{"error":"Repository not found"}', "error message"),
    "legacy": (b"tjgg\x03\x00\x00\x00" + b"\0" * 40, "legacy"),
    "safetensors": (struct.pack("<Q", 50_000) + b'{"__metadata__":{"format":"pt"}', "safetensors"),
    "PyTorch checkpoint": (b"PK\x03\x04" + b"\0" * 60, "archive"),
}


DECIDED_WITH_THE_WHOLE_HEADER = {
    "no architecture",
    "architecture is a number",
    "architecture with escapes",
    "projector",
    "adapter",
    "vocabulary only",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_with_a_stable_code(case, writer):
    make, code = HOSTILE[case]
    data = make(writer)
    error = refusal(data)
    assert error.code == code
    if case not in DECIDED_WITH_THE_WHOLE_HEADER:
        assert error.offset is not None
        assert 0 <= error.offset <= len(data)


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_file_that_is_not_gguf_is_named_for_what_it_is(case):
    data, hint = WRONG_FILES[case]
    error = refusal(data)
    assert (error.code, error.offset) == ("not_gguf", 0)
    assert hint in error.message


def test_every_cut_of_a_file_is_refused(writer):
    data = writer().model().bytes()
    for size in range(len(data) - 1):
        with pytest.raises(GgufError) as caught:
            read_header(BytesSource(data[:size]))
        assert caught.value.code == "gguf_truncated"


def strings_of_wide_characters() -> bytes:
    """One astral character makes a text four times as large in memory as in the file."""
    gguf = GgufBuilder("llama")
    for number in range(15):
        gguf.text(f"k{number}", "x" * (MIB - 8) + "\N{GRINNING FACE}")
    return gguf.tensor("a", (32,)).bytes()


def many_short_arrays() -> bytes:
    """Each array is short enough to be kept; all of them together are not."""
    gguf, values = GgufBuilder("llama"), [70_000] * 4_096
    for number in range(900):
        gguf.numbers(f"k{number}", values, Kind.U32)
    return gguf.tensor("a", (32,)).bytes()


def many_empty_strings() -> bytes:
    packed = struct.pack("<IIQ", Kind.ARRAY, Kind.STRING, 9_000_000) + bytes(8 * 9_000_000)
    return GgufBuilder("llama").raw("k", packed).tensor("a", (32,)).bytes()


def huge_chat_template() -> bytes:
    return GgufBuilder("llama").text("tokenizer.chat_template", "{" * (2 * MIB)).tensor("a", (32,)).bytes()


COSTLY = {
    "wide characters": (strings_of_wide_characters, "gguf_limit_exceeded"),
    "many short arrays": (many_short_arrays, "gguf_limit_exceeded"),
    "many empty strings": (many_empty_strings, "gguf_limit_exceeded"),
    "huge chat template": (huge_chat_template, "gguf_limit_exceeded"),
}


@pytest.mark.parametrize("case", COSTLY)
def test_a_costly_file_costs_little(case):
    make, code = COSTLY[case]
    assert refusal(make()).code == code


def test_the_largest_header_within_the_limits_is_bounded():
    """An eighth of all limits at once in an eighth of the time and memory: the whole would be slow to trace."""
    gguf = GgufBuilder("llama")
    for number in range(65_536 // 8):
        gguf.number(f"k{number}", number)
    for number in range(65_536 // 8):
        gguf.tensor(f"blk.{number}.a.rather.long.name.for.a.tensor.weight", (1, 1, 1, 1))
    gguf.raw("t", struct.pack("<IIQ", 9, 8, 250_000) + (struct.pack("<Q", 1) + b"a") * 250_000)
    data = gguf.header().ljust(8 * MIB, b"\0")
    started = time.thread_time()
    assert len(read_header(BytesSource(data)).tensors) == 65_536 // 8
    assert time.thread_time() - started < TIME_LIMIT_S / 2
    tracemalloc.start()
    describe("x", [read_header(BytesSource(data))])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY_LIMIT / 8


def test_head_counts_per_layer_are_read_and_absurd_ones_survive():
    for values in ([0, 8, 0], [-1, -1], [2**31 - 1] * 4_096, []):
        gguf = GgufBuilder("llama").numbers("llama.attention.head_count_kv", values).tensor("a", (32,))
        document = describe("x", [read_header(BytesSource(gguf.bytes()))])
        assert document.head_count_kv == max(values, default=None)
        assert len(document.model_dump_json()) < 256 * 1024


def lfs_pointer(root: Path) -> str:
    (root / "m.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n")
    return "m.gguf"


def pipe(root: Path) -> str:
    os.mkfifo(root / "m.gguf")
    return "m.gguf"


def directory(root: Path) -> str:
    (root / "m.gguf").mkdir()
    return "m.gguf"


def link_to_a_device(root: Path) -> str:
    (root / "m.gguf").symlink_to("/dev/zero")
    return "m.gguf"


def link_out_of_the_root(root: Path) -> str:
    llama().write(root.parent / "outside.gguf")
    (root / "m.gguf").symlink_to("../outside.gguf")
    return "m.gguf"


def parts(root: Path) -> list[Path]:
    return llama().write_split(root, "m", 3)


def shards_of_two_models(root: Path) -> str:
    written = parts(root)
    strangers = llama(layers=5).write_split(root / "other", "m", 3)
    strangers[1].rename(written[1])
    return written[0].name


def missing_middle_shard(root: Path) -> str:
    written = parts(root)
    written[1].unlink()
    return written[0].name


def duplicate_tensors(root: Path) -> str:
    written = parts(root)
    copy = GgufBuilder(None).number("split.no", 2, Kind.U16).number("split.count", 3, Kind.U16)
    copy.tensor("token_embd.weight", (64, 512), Dtype.Q8_0).write(written[2])
    return written[0].name


def zero_length_shard(root: Path) -> str:
    written = parts(root)
    written[2].write_bytes(b"")
    return written[0].name


def cut_shard(root: Path) -> str:
    written = parts(root)
    os.truncate(written[2], written[2].stat().st_size - 4096)
    return written[0].name


def later_shard(root: Path) -> str:
    return parts(root)[1].name


def joined_with_cat(root: Path) -> str:
    (root / "joined.gguf").write_bytes(b"".join(part.read_bytes() for part in parts(root)))
    return "joined.gguf"


def split_count_65535(root: Path) -> str:
    gguf = llama().number("split.no", 0, Kind.U16).number("split.count", 65_535, Kind.U16)
    return gguf.write(root / "m-00001-of-65535.gguf").name


def shards_with_long_texts(root: Path) -> str:
    """Each part is within the memory budget; all of them together are not."""
    names: list[str] = []
    for number in range(3):
        gguf = GgufBuilder("llama" if number == 0 else None).text("k", "x" * (MIB - 8)).tensor(f"t{number}", (32,))
        gguf.texts("v", ["y" * (MIB - 8)] * 7).number("split.no", number, Kind.U16).number("split.count", 3, Kind.U16)
        names.append(gguf.write(root / f"m-{number + 1:05d}-of-00003.gguf").name)
    return names[0]


ON_DISK = {
    "long texts in all shards": (shards_with_long_texts, "gguf_limit_exceeded"),
    "LFS pointer": (lfs_pointer, "not_gguf"),
    "pipe": (pipe, "not_a_regular_file"),
    "directory": (directory, "no_gguf_in_folder"),
    "link to a device": (link_to_a_device, "path_outside_models_root"),
    "link out of the root": (link_out_of_the_root, "path_outside_models_root"),
    "shards of two models": (shards_of_two_models, "gguf_corrupt"),
    "missing middle shard": (missing_middle_shard, "split_incomplete"),
    "duplicate tensors across shards": (duplicate_tensors, "gguf_corrupt"),
    "zero-length shard": (zero_length_shard, "gguf_truncated"),
    "cut shard": (cut_shard, "gguf_truncated"),
    "a later shard": (later_shard, "split_not_first_part"),
    "split.count 65535": (split_count_65535, "gguf_limit_exceeded"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", ON_DISK)
def test_a_hostile_file_on_disk_is_refused(case, tmp_path):
    make, code = ON_DISK[case]
    root = tmp_path / "models"
    root.mkdir()
    path = make(root)
    assert bounded(lambda: inspect_model(root, path)).code == code


def test_parts_joined_with_cat_are_refused(tmp_path):
    assert bounded(lambda: inspect_model(tmp_path, joined_with_cat(tmp_path))).code.startswith("split_")


@pytest.mark.parametrize("count", [0, 1])
def test_split_counts_of_one_file_are_accepted(count, tmp_path):
    llama().number("split.no", 0, Kind.U16).number("split.count", count, Kind.U16).write(tmp_path / "m.gguf")
    assert inspect_model(tmp_path, "m.gguf").gguf.split_count == 1


NOT_MODELS: dict[str, tuple[Callable[[], GgufBuilder], str]] = {
    "projector by architecture": (lambda: GgufBuilder("clip").tensor("v.patch", (8, 8)), "mmproj"),
    "projector by type": (lambda: GgufBuilder("x").text("general.type", "mmproj").tensor("a", (8,)), "mmproj"),
    "adapter": (lambda: GgufBuilder("llama").text("general.type", "adapter").tensor("a", (8,)), "lora"),
    "vocabulary": (lambda: GgufBuilder("llama").texts("tokenizer.ggml.tokens", ["a"]), "vocab"),
    "importance matrix": (lambda: GgufBuilder(None).text("general.type", "imatrix").tensor("a", (32,)), "imatrix"),
}


@pytest.mark.parametrize("case", NOT_MODELS)
def test_what_is_no_model_is_refused_as_one_but_can_be_described(case):
    make, kind = NOT_MODELS[case]
    data = make().bytes()
    assert refusal(data).code == "gguf_not_a_model"
    assert describe_any("x.gguf", [read_header(BytesSource(data))]).kind == kind


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = GgufBuilder("llama").texts("k", ["x" * 1000] * 2000).tensor("a", (32,)).write(tmp_path / "m.gguf")
    whole = path.read_bytes()
    pread = os.pread

    def shrinking(descriptor: int, length: int, offset: int) -> bytes:
        data = pread(descriptor, length, offset)
        os.truncate(path, 300_000)
        return data

    def read() -> Any:
        path.write_bytes(whole)
        return inspect_model(tmp_path, "m.gguf")

    monkeypatch.setattr("cortex_gguf_inspector.window.os.pread", shrinking)
    assert bounded(read).code == "gguf_truncated"
