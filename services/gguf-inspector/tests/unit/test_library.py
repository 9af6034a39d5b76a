"""The library on a real file system: what is there, what is missing, what belongs together."""

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from cortex_contracts.library import EntryKind, EntryState, LibraryEntryV1, VerifyRequestV1
from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.library.quality import preference
from cortex_gguf_inspector.library.scan import Library
from cortex_gguf_inspector.library.tree import ScanBounds
from cortex_gguf_inspector.library.verify import verify_model

READY, INCOMPLETE, REJECTED = EntryState.READY, EntryState.INCOMPLETE, EntryState.REJECTED


def entries(root: Path, **bounds: float) -> dict[str, LibraryEntryV1]:
    snapshot = Library(root, bounds=ScanBounds(**bounds)).scan()  # pyright: ignore[reportArgumentType]
    return {entry.path: entry for entry in snapshot.entries}


def safetensors(path: Path, tensors: dict[str, tuple[str, list[int], int]], *, cut: int = 0) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * (end - cut))


@pytest.fixture
def hub(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "org", **more: object) -> Path:
        folder = tmp_path / name
        safetensors(folder / "model-00001-of-00002.safetensors", {"a": ("BF16", [4, 4], 32)})
        safetensors(folder / "model-00002-of-00002.safetensors", {"b": ("BF16", [4], 8)})
        index = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        config = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096, "vocab_size": 100, **more}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def test_a_file_a_set_and_what_is_no_model(tmp_path, writer, write_split):
    writer().model().write(tmp_path / "org" / "tiny.gguf")
    write_split(tmp_path / "big", 3)
    (tmp_path / "page.gguf").write_text("<!doctype html>")
    (tmp_path / "notes.txt").write_text("notes")
    found = entries(tmp_path)
    assert {path: entry.state for path, entry in found.items()} == {
        "big/big-00001-of-00003.gguf": READY,
        "org/tiny.gguf": READY,
        "page.gguf": REJECTED,
    }
    big = found["big/big-00001-of-00003.gguf"]
    assert big.parts is not None
    assert (big.files, big.parts.present, big.parts.tensors, big.parts.tensors_expected) == (3, 3, 3, 3)
    assert big.size == sum(path.stat().st_size for path in (tmp_path / "big").iterdir())
    assert [fit.engine for fit in big.engines if fit.suits] == ["llamacpp"]
    assert found["page.gguf"].code == "not_gguf"


@pytest.mark.parametrize(
    ("spoil", "state", "code", "says"),
    [
        (lambda parts: parts[1].unlink(), INCOMPLETE, "split_incomplete", "big-00002-of-00003.gguf"),
        (lambda parts: parts[0].unlink(), INCOMPLETE, "split_incomplete", "big-00001-of-00003.gguf"),
        (lambda parts: parts[1].write_bytes(b""), INCOMPLETE, "gguf_truncated", "big-00002-of-00003.gguf"),
        (lambda parts: os.truncate(parts[2], 200), INCOMPLETE, "gguf_truncated", "big-00003-of-00003.gguf"),
        (lambda parts: parts[1].write_bytes(parts[2].read_bytes()), REJECTED, "gguf_corrupt", "part 3 of 3"),
        (
            lambda parts: parts[0].write_bytes(b"".join(part.read_bytes() for part in parts)),
            REJECTED,
            "split_concatenated",
            "cat",
        ),
    ],
)
def test_a_spoilt_set_says_what_is_wrong_and_where(spoil, state, code, says, tmp_path, write_split):
    spoil(write_split(tmp_path, 3))
    (entry,) = entries(tmp_path).values()
    assert (entry.state, entry.code) == (state, code)
    assert says in entry.reason
    assert entry.path == "big-00001-of-00003.gguf"


def test_foreign_parts_are_in_the_entry(tmp_path, write_split):
    parts = write_split(tmp_path, 3)
    parts[1].write_bytes(parts[0].read_bytes())
    (entry,) = entries(tmp_path).values()
    assert entry.parts is not None
    assert list(entry.parts.foreign) == ["big-00002-of-00003.gguf"]


def test_pieces_of_bytes_are_one_entry_that_no_engine_reads(tmp_path, writer):
    data = writer().model().bytes()
    (tmp_path / "m.gguf.part1of2").write_bytes(data[:1000])
    (tmp_path / "m.gguf.part2of2").write_bytes(data[1000:])
    (entry,) = entries(tmp_path).values()
    assert (entry.path, entry.state, entry.size) == ("m.gguf.part1of2", READY, len(data))
    assert not any(fit.suits for fit in entry.engines)
    (tmp_path / "m.gguf.part2of2").unlink()
    (entry,) = entries(tmp_path).values()
    assert (entry.state, entry.code) == (INCOMPLETE, "split_incomplete")


def test_kinds(tmp_path, writer):
    writer(architecture="clip").tensor("v").write(tmp_path / "mmproj.gguf")
    writer().text("general.type", "adapter").tensor("a").write(tmp_path / "lora.gguf")
    writer().array("tokenizer.ggml.tokens", 8, ["x"]).write(tmp_path / "vocab.gguf")
    writer(architecture="bert").tensor("a").write(tmp_path / "bert.gguf")
    kinds = {path: entry.kind for path, entry in entries(tmp_path).items()}
    assert kinds == {
        "mmproj.gguf": EntryKind.MMPROJ,
        "lora.gguf": EntryKind.ADAPTER,
        "vocab.gguf": EntryKind.VOCAB,
        "bert.gguf": EntryKind.EMBEDDING,
    }


def model(writer, name: str, file_type: int, *, rows: int = 100):
    gguf = writer().text("general.name", name).number("general.file_type", file_type)
    gguf.number("llama.embedding_length", 64).number("llama.block_count", 2)
    gguf.array("tokenizer.ggml.tokens", 8, [f"t{n}" for n in range(50)]).text("tokenizer.ggml.model", "gpt2")
    gguf.text("tokenizer.chat_template", "{{ messages }}")
    return gguf.tensor("token_embd.weight", (64, rows), 3)


def test_one_of_the_quantizations_is_recommended_with_a_reason(tmp_path, writer):
    for label, file_type in (("Q2_K", 10), ("Q4_K_M", 15), ("Q8_0", 7)):
        model(writer, "Tiny", file_type).write(tmp_path / f"tiny-{label}.gguf")
    model(writer, "Other", 10).write(tmp_path / "other.gguf")
    found = entries(tmp_path)
    assert [path for path, entry in found.items() if entry.recommended] == ["tiny-Q8_0.gguf"]
    assert "lossless" in found["tiny-Q8_0.gguf"].recommendation
    assert "tiny-Q8_0.gguf" in found["tiny-Q2_K.gguf"].recommendation
    assert found["other.gguf"].recommendation == ""
    assert len({entry.family for entry in found.values()}) == 2
    assert found["tiny-Q2_K.gguf"].quality


def test_large_models_are_recommended_in_four_bits():
    labels = ["Q8_0", "Q4_K_M", "Q2_K", "F16", "MXFP4_MOE", "unheard-of"]
    assert sorted(labels, key=lambda label: preference(label, 70_000_000_000))[:2] == ["MXFP4_MOE", "Q4_K_M"]
    assert sorted(labels, key=lambda label: preference(label, 1_000_000_000))[:2] == ["MXFP4_MOE", "Q8_0"]


def test_projectors_and_drafts_find_their_model(tmp_path, writer):
    model(writer, "Big", 15, rows=1000).write(tmp_path / "big" / "big.gguf")
    model(writer, "Small", 15, rows=100).write(tmp_path / "small.gguf")
    fits = writer(architecture="clip").number("clip.vision.projection_dim", 64).tensor("v")
    fits.write(tmp_path / "big" / "mmproj-big.gguf")
    wide = writer(architecture="clip").number("clip.vision.projection_dim", 128).tensor("v")
    wide.write(tmp_path / "big" / "mmproj-other.gguf")
    found = entries(tmp_path)
    assert found["big/big.gguf"].drafts == ("small.gguf",)
    assert found["small.gguf"].drafts == ()
    assert found["big/big.gguf"].mmproj == ("big/mmproj-big.gguf",)


def test_a_safetensors_folder_is_for_vllm(hub, tmp_path):
    hub()
    (entry,) = entries(tmp_path).values()
    assert (entry.path, entry.state, entry.architecture) == ("org", READY, "LlamaForCausalLM")
    assert (entry.parameters, entry.quantization, entry.context_length, entry.vocab_size) == (20, "BF16", 4096, 100)
    assert [fit.engine for fit in entry.engines if fit.suits] == ["vllm"]


def cut(folder: Path) -> None:
    safetensors(folder / "model-00002-of-00002.safetensors", {"b": ("BF16", [4], 8)}, cut=2)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(), "1 shards of the index are missing"),
        (cut, "2 bytes behind the end"),
        (lambda folder: (folder / "model-00001-of-00002.safetensors").write_bytes(b"\xff" * 9), "cut off"),
        (lambda folder: (folder / "model-00001-of-00002.safetensors").write_bytes(b""), "cut off"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "no valid JSON"),
        (lambda folder: (folder / "config.json").write_text('{"architectures": [1, {}]}'), "names no architecture"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "no weight_map"),
    ],
)
def test_a_safetensors_folder_that_is_not_whole_says_why(spoil, says, hub, tmp_path):
    spoil(hub())
    (entry,) = entries(tmp_path).values()
    assert entry.state is INCOMPLETE
    assert says in entry.reason


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "BF16", "shape": [4], "data_offsets": [8, 0]},
        {"dtype": "BF16", "shape": [-4], "data_offsets": [0, 8]},
        {"dtype": "BF16", "shape": ["4"], "data_offsets": [0, 8]},
        {"dtype": "BF16" * 99, "shape": [4], "data_offsets": [0, 8]},
        {"dtype": "BF16", "shape": [1 << 60] * 2, "data_offsets": [0, 8]},
        {"dtype": "BF16"},
    ],
)
def test_nonsense_in_a_safetensors_header_is_damage(tensor, hub, tmp_path):
    raw = json.dumps({"a": tensor}).encode()
    (hub() / "model-00001-of-00002.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * 8)
    (entry,) = entries(tmp_path).values()
    assert entry.state is INCOMPLETE
    assert "damaged" in entry.reason


def test_only_what_changed_is_read_again(tmp_path, writer):
    for name in ("a", "b", "c"):
        writer().model().write(tmp_path / f"{name}.gguf")
    library = Library(tmp_path)
    assert [library.scan().read for _ in range(2)] == [3, 0]
    writer().model().text("x", "y").write(tmp_path / "b.gguf")
    assert library.scan().read == 1


def test_hostile_names_links_and_special_files_are_harmless(tmp_path, writer):
    root = tmp_path / "models"
    outside = writer().model().write(tmp_path / "outside" / "secret.gguf")
    writer().model().write(root / "ok.gguf")
    (root / "link.gguf").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    (root / "loop").symlink_to(root)
    (root / "a\nb.gguf").write_bytes(b"x")
    (root / "\x1b[31m.gguf").write_bytes(b"x")
    with open(os.fsencode(root) + b"/\xff.gguf", "wb") as file:
        file.write(b"x")
    os.mkfifo(root / "pipe.gguf")
    snapshot = Library(root).scan()
    assert [entry.path for entry in snapshot.entries] == ["ok.gguf"]
    assert any("link.gguf" in note for note in snapshot.notes)
    assert all(note.isprintable() for note in snapshot.notes)


def test_a_hugging_face_cache_is_followed_inside_the_root(tmp_path, writer):
    blob = writer().model().write(tmp_path / "models--org--tiny" / "blobs" / "0a1b")
    link = tmp_path / "models--org--tiny" / "snapshots" / "rev" / "tiny.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    assert list(entries(tmp_path)) == ["models--org--tiny/snapshots/rev/tiny.gguf"]


def test_the_bounds_hold_and_are_said(tmp_path, writer):
    writer().model().write(tmp_path / "a" / "b" / "c" / "deep.gguf")
    for number in range(20):
        (tmp_path / f"{number}.gguf").write_bytes(b"")
    shallow = Library(tmp_path, bounds=ScanBounds(depth=2)).scan()
    assert not shallow.complete
    assert len(shallow.entries) == 20
    few = Library(tmp_path, bounds=ScanBounds(entries=5)).scan()
    assert len(few.entries) <= 5
    assert "5 entries" in few.notes[0]
    hurried = Library(tmp_path, bounds=ScanBounds(time_s=0)).scan()
    assert not hurried.complete


@pytest.mark.slow
def test_ten_thousand_files_are_looked_at_in_time(tmp_path):
    for folder in range(100):
        (tmp_path / f"f{folder}").mkdir()
        for number in range(100):
            (tmp_path / f"f{folder}" / f"{number}.txt").touch()
    started = time.monotonic()
    assert Library(tmp_path).scan().complete
    assert time.monotonic() - started < 2


def test_a_page_is_cut_out(tmp_path, writer):
    for name in ("a/1", "a/2", "b/3"):
        writer().model().write(tmp_path / f"{name}.gguf")
    snapshot = Library(tmp_path).scan()
    page = snapshot.page(PurePosixPath("a"), 1, 5)
    assert ([entry.path for entry in page.entries], page.total) == (["a/2.gguf"], 2)


def test_verification_tells_what_is_wrong(tmp_path, write_split, hub, writer):
    parts = write_split(tmp_path, 3)
    result = verify_model(tmp_path, VerifyRequestV1(path="big-00002-of-00003.gguf"))
    assert result.ok
    assert (len(result.files), result.tensors) == (3, 3)
    assert all(file.sha256 for file in result.files)
    os.truncate(parts[1], 200)
    result = verify_model(tmp_path, VerifyRequestV1(path=parts[0].name))
    assert not result.ok
    assert parts[1].name in result.problems[0]
    writer().model().write(tmp_path / "one.gguf")
    wrong = verify_model(tmp_path, VerifyRequestV1(path="one.gguf", expected_sha256="0" * 64))
    assert not wrong.ok
    right = VerifyRequestV1(path="one.gguf", expected_sha256=wrong.files[0].sha256)
    assert verify_model(tmp_path, right).ok
    cut(hub())
    assert not verify_model(tmp_path, VerifyRequestV1(path="org")).ok
    with pytest.raises(GgufError):
        verify_model(tmp_path, VerifyRequestV1(path="../x"))
