"""The real demo model: agreement with the reference reader, speed, memory."""

import statistics
import time
import tracemalloc
from pathlib import Path

import pytest
from gguf import GGUFReader

from cortex_gguf_inspector.describe import describe
from cortex_gguf_inspector.inspect import inspect_file
from cortex_gguf_inspector.reader import read_header
from cortex_gguf_inspector.window import BytesSource

pytestmark = pytest.mark.integration


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore")
def test_we_agree_with_the_reference_reader(smollm2_gguf: Path):
    reference = GGUFReader(smollm2_gguf)
    header = read_header(BytesSource(smollm2_gguf.read_bytes()))
    assert header.data_offset == reference.data_offset
    assert [tensor.name for tensor in header.tensors] == [tensor.name for tensor in reference.tensors]
    for ours, theirs in zip(header.tensors, reference.tensors, strict=True):
        assert list(ours.dims) == [int(dim) for dim in theirs.shape]
        assert (ours.elements, ours.size, ours.type_id) == (theirs.n_elements, theirs.n_bytes, theirs.tensor_type)
        assert header.data_offset + ours.offset == theirs.data_offset
    theirs_keys = {key for key in reference.fields if not key.startswith("GGUF.")}
    assert set(header.metadata) == theirs_keys
    for key, value in header.metadata.items():
        expected = reference.fields[key].contents()
        if isinstance(value, int | float | bool | str):
            assert value == expected
        else:
            assert value.count == len(expected)
            assert list(value.head) == expected[: len(value.head)]


def test_the_demo_model_is_described(smollm2_gguf: Path):
    document = inspect_file(smollm2_gguf).gguf
    assert (document.architecture, document.quantization, document.parameters) == ("llama", "Q4_1", 134_515_008)
    assert (document.context_length, document.block_count) == (8192, 30)
    assert (document.head_count, document.head_count_kv, document.vocab_size) == (9, 3, 49152)
    assert document.chat_template
    assert describe("a", [read_header(BytesSource(smollm2_gguf.read_bytes()))]).identity == document.identity


def test_inspecting_is_fast_and_needs_little_memory(smollm2_gguf: Path):
    """A run takes about 11 ms on an idle machine; the bound leaves room for a busy one and still tells a walk from a load."""
    durations: list[float] = []
    for _ in range(10):
        started = time.perf_counter()
        inspect_file(smollm2_gguf)
        durations.append(time.perf_counter() - started)
    assert min(durations) < 0.05, statistics.median(durations)
    tracemalloc.start()
    inspect_file(smollm2_gguf)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


@pytest.mark.timeout(60)
def test_a_cut_off_download_is_refused(smollm2_gguf: Path):
    data = smollm2_gguf.read_bytes()
    for size in (100, 500_000, 1_785_663, 1_785_700, len(data) // 2, len(data) - 1):
        with pytest.raises(Exception, match=r"incomplete|missing|did not finish") as caught:
            read_header(BytesSource(data[:size]))
        assert getattr(caught.value, "code", None) == "gguf_truncated"
