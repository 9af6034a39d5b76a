"""The header reader: valid files, the hostile cases, bounded cost."""

import struct
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cortex_gguf_inspector.describe import describe
from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.reader import read_header
from cortex_gguf_inspector.window import CHUNK_BYTES, BytesSource

U8, U16, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 2, 4, 5, 6, 7, 8, 9, 10


def refusal(data: bytes, limits: Limits | None = None) -> GgufError:
    with pytest.raises(GgufError) as caught:
        describe("x.gguf", [read_header(BytesSource(data), limits)])
    return caught.value


def outcome(data: bytes) -> str:
    """What a caller is told: the document, or the refusal. Anything but a GgufError is a bug."""
    try:
        return describe("x.gguf", [read_header(BytesSource(data))]).model_dump_json()
    except GgufError as error:
        return error.message


def test_a_valid_model_is_described(writer):
    document = describe("tiny.gguf", [read_header(BytesSource(writer().model().bytes()))])
    assert (document.architecture, document.name, document.quantization) == ("llama", "Tiny", "Q4_1")
    assert (document.parameters, document.tensor_count) == (64 * 100 + 64, 2)
    assert (document.context_length, document.block_count, document.head_count) == (2048, 2, 4)
    assert (document.vocab_size, document.chat_template, document.gguf_version) == (100, True, 3)
    assert document.bits_per_weight == round((6400 / 32 * 20 + 64 * 4) * 8 / 6464, 3)


def test_version_2_is_read(writer):
    assert read_header(BytesSource(writer(version=2).model().bytes())).version == 2


def test_quantization_comes_from_the_tensors_without_a_label(writer):
    gguf = writer().tensor("a", (32, 40), 39).tensor("b", (32,), 0)
    assert describe("x", [read_header(BytesSource(gguf.bytes()))]).quantization == "MXFP4"


def test_a_guessed_label_is_a_label(writer):
    gguf = writer().number("general.file_type", 1024 + 38).tensor("a")
    assert describe("x", [read_header(BytesSource(gguf.bytes()))]).quantization == "MXFP4_MOE"


def test_head_counts_per_layer_give_the_largest(writer):
    gguf = writer().array("llama.attention.head_count_kv", I32, [0] * 50 + [8] + [0] * 50).tensor("a")
    assert describe("x", [read_header(BytesSource(gguf.bytes()))]).head_count_kv == 8


def test_names_that_are_not_text_are_kept_apart_and_made_printable(writer):
    gguf = writer().text("general.name", b"bad \xff\x1b[2J").tensor(b"\xfe").tensor(b"\xff")
    document = describe("x", [read_header(BytesSource(gguf.bytes()))])
    assert document.tensor_count == 2
    assert document.name is not None
    assert document.name.isprintable()
    assert document.model_dump_json()


def test_an_own_alignment_is_honoured(writer):
    gguf = writer().number("general.alignment", 64)
    gguf.alignment = 64
    header = read_header(BytesSource(gguf.tensor("a", (3,)).tensor("b", (3,)).bytes()))
    assert header.data_offset % 64 == 0
    assert header.tensors[1].offset == 64


def test_arrays_and_strings_across_buffer_borders_are_read(writer):
    tokens = ["x" * (n % 700) for n in range(2000)]
    gguf = writer().array("tokens", STRING, tokens).array("long", F32, [1.0] * (CHUNK_BYTES // 2))
    gguf.text("after", "b" * (CHUNK_BYTES + 5)).array("one", STRING, ["y" * 900_000]).text("last", "here").tensor("a")
    header = read_header(BytesSource(gguf.bytes()))
    assert header.text("last") == "here"
    assert header.text("after") == "b" * (CHUNK_BYTES + 5)
    assert header.header_size == len(gguf.header())


def test_a_skipped_string_that_passes_the_end_is_refused(writer):
    gguf = writer()
    entry = gguf.string("k") + gguf.pack("IIQ", ARRAY, STRING, 40) + gguf.string("a") * 39 + gguf.pack("Q", 5000)
    assert refusal(gguf.raw(entry).bytes()).code == "gguf_truncated"


def test_the_time_budget_ends_a_long_header(writer):
    gguf = writer().array("k", STRING, ["x" * 1000] * 2000).tensor("a")
    error = refusal(gguf.bytes(), Limits(time_budget_s=-1.0))
    assert error.code == "gguf_limit_exceeded"


def test_the_header_limit_holds_for_what_is_skipped(writer):
    gguf = writer().array("k", U8, [0] * 100_000).tensor("a")
    error = refusal(gguf.bytes(), Limits(header_bytes=50_000))
    assert error.code == "gguf_limit_exceeded"


def test_many_kept_strings_exceed_the_memory_limit(writer):
    gguf = writer()
    for n in range(20):
        gguf.text(f"key{n}", "x" * 1000)
    assert refusal(gguf.bytes(), Limits(kept_total_bytes=10_000)).code == "gguf_limit_exceeded"


def test_identity_is_stable_and_tells_two_trainings_apart(writer):
    data = writer().model().bytes()
    changed = bytearray(data)
    changed[-100] ^= 1
    first, again, other = (read_header(BytesSource(bytes(item))).digest for item in (data, data, changed))
    assert first == again
    assert first != other


def test_a_refusal_carries_the_offset(writer):
    error = refusal(writer().tensor("a", (32,), 99).bytes())
    assert error.offset is not None
    assert error.details == {"offset": error.offset}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.slow
def test_mutated_files_are_read_or_refused_never_worse(data, writer):
    raw = bytearray(writer().model().bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(raw) - 1, 900)))
        piece = data.draw(
            st.sampled_from([b"", b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff", b"\1"]) | st.binary(max_size=12)
        )
        raw[at : at + data.draw(st.integers(0, 8))] = piece
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    started = time.monotonic()
    said = outcome(bytes(raw))
    assert said.isprintable()
    assert time.monotonic() - started < 2


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_after_a_valid_start_are_read_or_refused(tail):
    head = b"GGUF" + struct.pack("<Iqq", 3, 2, 2)
    assert outcome(head + tail)
