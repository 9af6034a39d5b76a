"""Key by key and tensor by tensor the same as the reference reader (`gguf.GGUFReader`) on real files and real shapes.

The sparse models have a small vocabulary here: the reference reader needs many seconds for a real one. With
CORTEX_TEST_GEMMA3=<path of gemma-3-270m-q4_k_m.gguf> that model is compared too.
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf import GGUFReader

from cortex_gguf_inspector.header import ArrayValue, Header
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.reader import array_items, read_header
from cortex_gguf_inspector.window import FileSource
from cortex_testing.gguf import GgufBuilder, deepseek2, gemma3, gpt_oss_20b, gpt_oss_120b, jamba, llama

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]

SHAPES: dict[str, Callable[[], GgufBuilder]] = {
    "gpt-oss-20b": lambda: gpt_oss_20b(vocabulary=256, merges=256),
    "gpt-oss-120b": lambda: gpt_oss_120b(vocabulary=256, merges=256),
    "deepseek2": lambda: deepseek2(vocabulary=256),
    "jamba": lambda: jamba(vocabulary=300),
    "gemma3": lambda: gemma3(vocabulary=300),
    "llama, filled, alignment 32": lambda: llama(filled=True),
}


def assert_agreement(path: Path) -> Header:
    """Compare everything that both readers tell."""
    reference = GGUFReader(path)
    with path.open("rb") as file:
        source = FileSource(file.fileno())
        header = read_header(source)
        theirs = {key for key in reference.fields if not key.startswith("GGUF.")}
        assert set(header.metadata) == theirs
        for key, value in header.metadata.items():
            expected = reference.fields[key].contents()
            if isinstance(value, ArrayValue):
                assert value.count == len(expected)
                assert list(array_items(source, value, Limits(time_budget_s=60))) == list(expected), key
                assert list(value.head) == list(expected[: len(value.head)])
            else:
                assert value == expected, key
                assert isinstance(value, (type(expected), int, float)), key
    assert header.data_offset == reference.data_offset
    assert [tensor.name for tensor in header.tensors] == [tensor.name for tensor in reference.tensors]
    for ours, tensor in zip(header.tensors, reference.tensors, strict=True):
        assert list(ours.dims) == [int(dim) for dim in tensor.shape]
        assert (ours.elements, ours.size, ours.type_id) == (tensor.n_elements, tensor.n_bytes, tensor.tensor_type)
        assert header.data_offset + ours.offset == tensor.data_offset
    return header


@pytest.mark.parametrize("shape", SHAPES)
def test_sparse_models_of_real_shapes(shape: str, tmp_path: Path) -> None:
    gguf = SHAPES[shape]()
    path = gguf.write(tmp_path / "model.gguf")
    header = assert_agreement(path)
    assert sum(tensor.size for tensor in header.tensors) == gguf.data_bytes
    assert path.stat().st_blocks * 512 < 4 * 1024 * 1024


def test_a_split_set_of_63_gigabytes(tmp_path: Path) -> None:
    gguf = gpt_oss_120b(vocabulary=256, merges=256)
    headers = [assert_agreement(part) for part in gguf.write_split(tmp_path, "gpt-oss-120b-mxfp4", 3)]
    assert sum(len(header.tensors) for header in headers) == len(gguf.tensors) == 687
    assert sum(header.file_size for header in headers) > 60_000_000_000
    assert [header.integer("split.no") for header in headers] == [0, 1, 2]


def test_another_alignment_and_version_2(tmp_path: Path) -> None:
    gguf = GgufBuilder("llama", alignment=128, version=2).tensor("a", (3,)).tensor("b", (5, 7))
    assert assert_agreement(gguf.write(tmp_path / "model.gguf")).alignment == 128


def test_the_demo_model(smollm2_gguf: Path) -> None:
    assert len(assert_agreement(smollm2_gguf).tensors) == 272


@pytest.mark.skipif("CORTEX_TEST_GEMMA3" not in os.environ, reason="CORTEX_TEST_GEMMA3 does not name gemma-3-270m")
@pytest.mark.timeout(300)
def test_gemma_3() -> None:
    assert len(assert_agreement(Path(os.environ["CORTEX_TEST_GEMMA3"])).tensors) == 236


@pytest.mark.parametrize("shape", ["gpt-oss-20b", "gpt-oss-120b", "deepseek2", "jamba", "gemma3"])
def test_the_real_engine_takes_the_sparse_models_for_real_ones(
    shape: str, tmp_path: Path, llama_server_binary: Path
) -> None:
    """It reads the header and the vocabulary, then is killed: before it touches a weight."""
    gguf = SHAPES[shape]()
    path = gguf.write(tmp_path / "model.gguf")
    command = [str(llama_server_binary), "-m", str(path), "-c", "512", "-np", "1", "-lv", "4", "-fit", "off"]
    command += ["--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as run:
        assert run.stdout is not None
        said: list[str] = []
        for line in run.stdout:
            said.append(line)
            if "loading model tensors" in line:
                break
        run.kill()
    text = "".join(said)
    assert "loading model tensors" in text, text[-2000:]
    printed = re.search(r"model params\s+= ([\d.]+) ([MB])", text)
    assert printed is not None
    assert float(printed[1]) * {"M": 1e6, "B": 1e9}[printed[2]] == pytest.approx(gguf.parameters, rel=0.001)
