"""What the inspector tells of a model, beyond what stands in the header."""

import hashlib
import os
from pathlib import Path

import pytest

from cortex_contracts.documents import GgufDocumentV1
from cortex_gguf_inspector.capabilities import template_capabilities
from cortex_gguf_inspector.checksum import ChecksumCancelled, sha256_of_file
from cortex_gguf_inspector.describe import describe, describe_any
from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.header import ArrayValue
from cortex_gguf_inspector.reader import array_items, read_header
from cortex_gguf_inspector.window import BytesSource, FileSource
from cortex_testing.gguf import Dtype, GgufBuilder, Kind, deepseek2, gemma3, gpt_oss_20b, gpt_oss_120b, jamba, llama


def document(gguf: GgufBuilder, folder: Path) -> GgufDocumentV1:
    """As described from a sparse file."""
    with gguf.write(folder / "model.gguf").open("rb") as file:
        return describe_any("model.gguf", [read_header(FileSource(file.fileno()))])


def test_gpt_oss_120b_is_what_its_makers_say(tmp_path):
    told = document(gpt_oss_120b(vocabulary=201_088), tmp_path)
    assert (told.parameters, told.parameters_active) == (116_829_156_672, 5_132_849_472)
    assert (told.tensor_bytes, told.bits_per_weight) == (63_374_323_968, 4.34)
    assert (told.quantization_label, told.quantization_dominant) == ("MXFP4_MOE", "MXFP4")
    mix = [(share.type, share.tensors) for share in told.quantization_mix]
    assert mix == [("MXFP4", 108), ("Q8_0", 146), ("F32", 433)]
    assert (told.kind, told.name, told.size_label, told.license) == ("model", "Gpt Oss 120B", "120B", "apache-2.0")
    assert (told.context_length, told.block_count, told.head_count, told.head_count_kv) == (131_072, 36, 64, 8)
    assert (told.expert_count, told.expert_used_count, told.expert_feed_forward_length) == (128, 4, 2880)
    assert (told.key_length, told.value_length, told.vocab_size) == (64, 64, 201_088)
    assert (told.sliding_window, told.sliding_window_layers) == (128, (True, False) * 18)
    assert (told.rope_scaling_type, told.rope_scaling_factor, told.rope_original_context_length) == ("yarn", 32.0, 4096)
    assert (told.tokenizer_model, told.tokenizer_pre) == ("gpt2", "gpt-4o")
    assert told.chat_capabilities == ("system", "tools", "reasoning")
    assert len(told.model_dump_json()) < 4096


def test_gpt_oss_20b_has_its_published_sizes(tmp_path):
    told = document(gpt_oss_20b(vocabulary=201_088), tmp_path)
    assert (told.parameters, told.tensor_bytes, told.tensor_count) == (20_914_757_184, 12_096_558_336, 459)
    assert told.parameters_active == pytest.approx(3.61e9, rel=0.01)


def test_hybrids_tell_their_heads_per_layer(tmp_path):
    told = document(jamba(), tmp_path)
    assert (told.head_count_kv, told.head_counts_kv) == (8, (0, 0, 0, 0, 8, 0, 0, 0))
    assert told.parameters_active is not None
    assert told.parameters_active < told.parameters


def test_latent_attention_tells_the_widths_of_the_file(tmp_path):
    told = document(deepseek2(), tmp_path)
    assert (told.key_length, told.value_length, told.expert_shared_count) == (576, 512, 2)


def test_windows_follow_the_architecture_or_the_file(tmp_path):
    assert document(gemma3(layers=7), tmp_path).sliding_window_layers == (True,) * 5 + (False, True)
    own = GgufBuilder("new").own(block_count=4, attention__sliding_window=64).tensor("a", (32,))
    assert document(own, tmp_path).sliding_window_layers == ()
    own.numbers("new.attention.sliding_window_pattern", [True, False, False, True], Kind.BOOL)
    assert document(own, tmp_path).sliding_window_layers == (True, False, False, True)
    period = GgufBuilder("new").own(block_count=4, attention__sliding_window=64, attention__sliding_window_pattern=2)
    assert document(period.tensor("a", (32,)), tmp_path).sliding_window_layers == (True, False, True, False)
    assert document(llama(), tmp_path).sliding_window is None


def test_dense_models_have_no_active_parameters(tmp_path):
    assert document(llama(), tmp_path).parameters_active is None


def test_the_mix_stands_beside_a_wrong_label(tmp_path):
    gguf = GgufBuilder("llama").number("general.file_type", 1024 + 15)
    gguf.tensor("a", (256, 8), Dtype.Q8_0).tensor("b", (256, 2), Dtype.Q4_K)
    told = document(gguf, tmp_path)
    assert (told.quantization, told.quantization_guessed, told.quantization_dominant) == ("Q4_K_M", True, "Q8_0")
    assert [(share.type, share.parameters, share.bytes) for share in told.quantization_mix] == [
        ("Q8_0", 2048, 2176),
        ("Q4_K", 512, 288),
    ]


def test_encoders_and_their_pooling_are_told(tmp_path):
    gguf = GgufBuilder("nomic-bert").own(block_count=2, pooling_type=1).tensor("token_embd.weight", (32, 32))
    told = document(gguf, tmp_path)
    assert (told.kind, told.pooling_type) == ("encoder", "mean")


def test_a_projector_tells_what_it_encodes(tmp_path):
    gguf = GgufBuilder("clip").text("general.type", "mmproj").text("general.base_model.0.name", "Gemma 3 4b It")
    gguf.number("clip.has_vision_encoder", True, Kind.BOOL).text("clip.projector_type", "gemma3")
    told = document(gguf.tensor("v.patch", (8, 8)), tmp_path)
    assert (told.kind, told.projector_type, told.modalities) == ("mmproj", "gemma3", ("image",))
    assert told.base_models == ("Gemma 3 4b It",)


def test_an_adapter_is_described_but_not_as_a_model(tmp_path):
    gguf = GgufBuilder("llama").text("general.type", "adapter").tensor("blk.0.attn_q.weight.lora_a", (32, 8))
    assert document(gguf, tmp_path).kind == "lora"
    with pytest.raises(GgufError) as caught:
        describe("x", [read_header(BytesSource(gguf.bytes()))])
    assert caught.value.code == "gguf_not_a_model"


def test_further_templates_count(tmp_path):
    gguf = GgufBuilder("llama").text("tokenizer.chat_template", "{{ messages }}")
    gguf.texts("tokenizer.chat_templates", ["tool_use"]).text("tokenizer.chat_template.tool_use", "{{ tools }}")
    told = document(gguf.tensor("a", (32,)), tmp_path)
    assert (told.chat_template_names, told.chat_capabilities) == (("tool_use",), ("tools",))


TEMPLATES = {
    "ChatML": ("{% for m in messages %}<|im_start|>{{ m['role'] + '\n' }}{{ m.content }}{% endfor %}", ("system",)),
    "gemma": ("{{ raise_exception('System role not supported') if messages[0]['role'] == 'system' }}", ()),
    "comment": ("{# tools <think> 'image' #}{{ messages }}", ()),
    "tools": ("{% if tools is not none %}{{ tools }}{% endif %}", ("tools",)),
    "thinking": ("{% if enable_thinking %}<think>{% endif %}", ("reasoning",)),
    "harmony": ("<|channel|>analysis<|message|>", ("reasoning",)),
    "vision": ("{% if part.type == 'image' %}<|vision_start|><|image_pad|>{% endif %}", ("image",)),
    "omni": ("{% if c['type'] == 'audio' %}a{% elif c['type'] == 'video' %}v{% endif %}", ("audio", "video")),
    "empty": ("", ()),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_shows_what_it_handles(name):
    template, expected = TEMPLATES[name]
    assert template_capabilities(template) == expected


@pytest.mark.slow
@pytest.mark.timeout(5)
@pytest.mark.parametrize("piece", ["{#", "system role ", "<think", "{{ m.role ", "'image"])
def test_a_long_template_is_judged_in_linear_time(piece):
    assert isinstance(template_capabilities(piece * (1_000_000 // len(piece))), tuple)


def test_arrays_are_read_when_asked_for():
    tokens = [f"token {number}" for number in range(5000)]
    gguf = GgufBuilder("llama").texts("tokens", tokens).numbers("scores", [float(n) for n in range(5000)], Kind.F32)
    source = BytesSource(gguf.tensor("a", (32,)).bytes())
    header = read_header(source)
    for key, expected in (("tokens", tokens), ("scores", [float(n) for n in range(5000)])):
        value = header.metadata[key]
        assert isinstance(value, ArrayValue)
        assert len(value.head) == 32
        assert list(array_items(source, value)) == expected


def test_a_checksum_tells_its_progress_and_can_be_stopped(tmp_path):
    data = os.urandom(300_000)
    (tmp_path / "file").write_bytes(data)
    seen: list[tuple[int, int]] = []
    with (tmp_path / "file").open("rb") as file:
        digest = sha256_of_file(
            file.fileno(), progress=lambda done, total: seen.append((done, total)), block_bytes=1 << 17
        )
        assert digest == hashlib.sha256(data).hexdigest()
        assert seen == [(131_072, 300_000), (262_144, 300_000), (300_000, 300_000)]
        with pytest.raises(ChecksumCancelled, match="131072 of 300000"):
            sha256_of_file(
                file.fileno(),
                cancelled=lambda: len(seen) > 3,
                progress=lambda *_: seen.append((0, 0)),
                block_bytes=1 << 17,
            )


def test_a_checksum_of_a_file_that_grows_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)

    def grow(_done: int, _total: int) -> None:
        if path.stat().st_size < 2000:
            path.write_bytes(b"x" * 2000)

    with path.open("rb") as file, pytest.raises(GgufError) as caught:
        sha256_of_file(file.fileno(), progress=grow, block_bytes=1000)
    assert caught.value.code == "gguf_truncated"
