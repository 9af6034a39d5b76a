"""Models by their real shapes: the engine takes the headers for the real thing. Written sparse, they cost a few MB of disk."""

from collections.abc import Iterator

from cortex_testing.gguf.writer import Dtype, GgufBuilder, Kind

GPT_OSS_VOCABULARY = 201_088
GPT_OSS_MERGES = 446_189
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS_TEMPLATE = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}"
    "{% for message in messages %}{% if message.role == 'system' %}<|start|>system<|message|>{{ message.content }}"
    "{% elif message.tool_calls %}{{ message.tool_calls | tojson }}"
    "{% else %}<|start|>{{ message.role }}<|message|>{{ message.content }}{% endif %}<|end|>{% endfor %}"
    "{% if reasoning_effort is defined %}Reasoning: {{ reasoning_effort }}{% endif %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


def byte_pair_vocabulary(gguf: GgufBuilder, vocabulary: int, merges: int, pre: str) -> GgufBuilder:
    """A byte-pair tokenizer of the given size; token lengths are about those of a real one. The engine wants a merge."""
    gguf.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", pre)
    gguf.texts(
        "tokenizer.ggml.tokens", (f"tok{number:05d}"[: 4 + number % 8] + f"{number:x}" for number in range(vocabulary))
    )
    gguf.numbers("tokenizer.ggml.token_type", [1] * vocabulary)
    gguf.texts("tokenizer.ggml.merges", (f"{number % 4096:x} t{number:x}" for number in range(max(merges, 1))))
    last = vocabulary - 1
    gguf.number("tokenizer.ggml.bos_token_id", last - 1).number("tokenizer.ggml.eos_token_id", last)
    return gguf.number("tokenizer.ggml.padding_token_id", last)


def sentencepiece_vocabulary(gguf: GgufBuilder, vocabulary: int) -> GgufBuilder:
    """A SentencePiece tokenizer: specials, bytes, and pieces (at least 259)."""
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = special + [f"\N{LOWER ONE EIGHTH BLOCK}w{number}" for number in range(vocabulary - len(special))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (vocabulary - len(special))
    gguf.text("tokenizer.ggml.model", "llama").text("tokenizer.ggml.pre", "default")
    gguf.texts("tokenizer.ggml.tokens", pieces)
    gguf.numbers("tokenizer.ggml.scores", [-float(number) for number in range(vocabulary)], Kind.F32)
    gguf.numbers("tokenizer.ggml.token_type", kinds)
    gguf.number("tokenizer.ggml.bos_token_id", 1).number("tokenizer.ggml.eos_token_id", 2)
    return gguf.number("tokenizer.ggml.add_bos_token", True, Kind.BOOL)


def gpt_oss(layers: int, experts: int, size_label: str, *, vocabulary: int = 1024, merges: int = 0) -> GgufBuilder:
    """GPT-OSS with its real widths: SWA on every second layer, experts in MXFP4, the rest Q8_0."""
    gguf = GgufBuilder("gpt-oss")
    gguf.text("general.type", "model").text("general.name", f"Gpt Oss {size_label}")
    gguf.text("general.basename", "gpt-oss").text("general.size_label", size_label).text(
        "general.license", "apache-2.0"
    )
    gguf.number("general.file_type", 38).number("general.quantization_version", 2)
    gguf.own(block_count=layers, context_length=131072, embedding_length=2880, feed_forward_length=2880)
    gguf.own(attention__head_count=64, attention__head_count_kv=8, attention__key_length=64, attention__value_length=64)
    gguf.own(attention__sliding_window=128, attention__layer_norm_rms_epsilon=1e-5)
    gguf.own(expert_count=experts, expert_used_count=4, expert_feed_forward_length=2880)
    gguf.own(rope__freq_base=150000.0, rope__scaling__type="yarn", rope__scaling__factor=32.0)
    gguf.own(rope__scaling__original_context_length=4096)
    byte_pair_vocabulary(gguf, vocabulary, merges, "gpt-4o").text("tokenizer.chat_template", TOOLS_TEMPLATE)
    gguf.tensor("token_embd.weight", (2880, vocabulary), Dtype.Q8_0)
    for layer in range(layers):
        for name, dims, dtype in _gpt_oss_layer(experts):
            gguf.tensor(f"blk.{layer}.{name}", dims, dtype)
    return gguf.tensor("output_norm.weight", (2880,)).tensor("output.weight", (2880, vocabulary), Dtype.Q8_0)


def _gpt_oss_layer(experts: int) -> Iterator[tuple[str, tuple[int, ...], Dtype]]:
    yield "attn_norm.weight", (2880,), Dtype.F32
    yield "post_attention_norm.weight", (2880,), Dtype.F32
    for name, dims in (("q", (2880, 4096)), ("k", (2880, 512)), ("v", (2880, 512)), ("output", (4096, 2880))):
        yield f"attn_{name}.weight", dims, Dtype.Q8_0
        yield f"attn_{name}.bias", (dims[1],), Dtype.F32
    yield "attn_sinks.weight", (64,), Dtype.F32
    yield "ffn_gate_inp.weight", (2880, experts), Dtype.F32
    yield "ffn_gate_inp.bias", (experts,), Dtype.F32
    for name in ("gate", "up", "down"):
        yield f"ffn_{name}_exps.weight", (2880, 2880, experts), Dtype.MXFP4
        yield f"ffn_{name}_exps.bias", (2880, experts), Dtype.F32


def gpt_oss_20b(*, vocabulary: int = 1024, merges: int = 0) -> GgufBuilder:
    """459 tensors; 12,096,558,336 bytes of them with the real vocabulary."""
    return gpt_oss(24, 32, "20B", vocabulary=vocabulary, merges=merges)


def gpt_oss_120b(*, vocabulary: int = 1024, merges: int = 0) -> GgufBuilder:
    """687 tensors; 63,374,323,968 bytes of them with the real vocabulary."""
    return gpt_oss(36, 128, "120B", vocabulary=vocabulary, merges=merges)


def llama(*, layers: int = 2, vocabulary: int = 512, width: int = 64, filled: bool = False) -> GgufBuilder:
    """A tiny dense model (grouped-query attention); `filled` gives its tensors recognisable content."""
    gguf = GgufBuilder("llama")
    gguf.text("general.type", "model").text("general.name", "Tiny").text("general.size_label", "1M")
    gguf.number("general.file_type", 7)
    gguf.own(block_count=layers, context_length=2048, embedding_length=width, feed_forward_length=2 * width)
    gguf.own(attention__head_count=4, attention__head_count_kv=2, attention__layer_norm_rms_epsilon=1e-5)
    gguf.own(rope__dimension_count=width // 4, rope__freq_base=10000.0, vocab_size=vocabulary)
    sentencepiece_vocabulary(gguf, vocabulary).text("tokenizer.chat_template", CHAT_TEMPLATE)
    gguf.tensor("token_embd.weight", (width, vocabulary), Dtype.Q8_0, filled=filled)
    for layer in range(layers):
        shapes = {"q": (width, width), "k": (width, width // 2), "v": (width, width // 2), "output": (width, width)}
        gguf.tensor(f"blk.{layer}.attn_norm.weight", (width,), filled=filled)
        for name, dims in shapes.items():
            gguf.tensor(f"blk.{layer}.attn_{name}.weight", dims, Dtype.Q8_0, filled=filled)
        gguf.tensor(f"blk.{layer}.ffn_norm.weight", (width,), filled=filled)
        for name, dims in {"gate": (width, 2 * width), "up": (width, 2 * width), "down": (2 * width, width)}.items():
            gguf.tensor(f"blk.{layer}.ffn_{name}.weight", dims, Dtype.Q8_0, filled=filled)
    return gguf.tensor("output_norm.weight", (width,), filled=filled)


def gemma3(*, layers: int = 26, vocabulary: int = 1024) -> GgufBuilder:
    """Gemma 3 1B: five sliding-window layers, then a full one; no output tensor."""
    gguf = GgufBuilder("gemma3")
    gguf.text("general.type", "model").text("general.name", "Gemma 3 1b It").text("general.size_label", "1B")
    gguf.text("general.license", "gemma").number("general.file_type", 7)
    gguf.own(block_count=layers, context_length=32768, embedding_length=1152, feed_forward_length=6912)
    gguf.own(
        attention__head_count=4, attention__head_count_kv=1, attention__key_length=256, attention__value_length=256
    )
    gguf.own(attention__sliding_window=512, attention__layer_norm_rms_epsilon=1e-6, rope__freq_base=1000000.0)
    sentencepiece_vocabulary(gguf, vocabulary).text("tokenizer.chat_template", CHAT_TEMPLATE)
    gguf.tensor("token_embd.weight", (1152, vocabulary), Dtype.Q8_0).tensor("output_norm.weight", (1152,))
    matrices = {
        "attn_q": (1152, 1024),
        "attn_k": (1152, 256),
        "attn_v": (1152, 256),
        "attn_output": (1024, 1152),
        "ffn_gate": (1152, 6912),
        "ffn_up": (1152, 6912),
        "ffn_down": (6912, 1152),
    }
    for layer in range(layers):
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            gguf.tensor(f"blk.{layer}.{name}.weight", (1152,))
        for name in ("attn_q_norm", "attn_k_norm"):
            gguf.tensor(f"blk.{layer}.{name}.weight", (256,))
        for name, dims in matrices.items():
            gguf.tensor(f"blk.{layer}.{name}.weight", dims, Dtype.Q8_0)
    return gguf


def deepseek2(*, layers: int = 27, vocabulary: int = 1024) -> GgufBuilder:
    """DeepSeek V2 Lite: latent attention (MLA), first layer dense, 64 experts (6 used, 2 shared)."""
    gguf = GgufBuilder("deepseek2")
    gguf.text("general.type", "model").text("general.name", "DeepSeek V2 Lite").text("general.size_label", "64x1.5B")
    gguf.number("general.file_type", 7)
    gguf.own(block_count=layers, context_length=163840, embedding_length=2048, feed_forward_length=10944)
    gguf.own(attention__head_count=16, attention__head_count_kv=1, attention__layer_norm_rms_epsilon=1e-6)
    gguf.own(attention__kv_lora_rank=512, attention__key_length=576, attention__value_length=512)
    gguf.own(attention__key_length_mla=192, attention__value_length_mla=128, leading_dense_block_count=1)
    gguf.own(expert_count=64, expert_used_count=6, expert_shared_count=2, expert_feed_forward_length=1408)
    gguf.own(expert_weights_scale=1.0, rope__dimension_count=64, rope__freq_base=10000.0, vocab_size=vocabulary)
    gguf.own(rope__scaling__type="yarn", rope__scaling__factor=40.0, rope__scaling__original_context_length=4096)
    gguf.own(rope__scaling__yarn_log_multiplier=0.0707)
    byte_pair_vocabulary(gguf, vocabulary, 0, "deepseek-llm").text("tokenizer.chat_template", CHAT_TEMPLATE)
    gguf.tensor("token_embd.weight", (2048, vocabulary), Dtype.Q8_0)
    for layer in range(layers):
        for name, dims, dtype in _deepseek2_layer(dense=layer < 1):
            gguf.tensor(f"blk.{layer}.{name}.weight", dims, dtype)
    return gguf.tensor("output_norm.weight", (2048,)).tensor("output.weight", (2048, vocabulary), Dtype.Q8_0)


def _deepseek2_layer(*, dense: bool) -> Iterator[tuple[str, tuple[int, ...], Dtype]]:
    yield "attn_norm", (2048,), Dtype.F32
    yield "attn_q", (2048, 3072), Dtype.Q8_0
    yield "attn_kv_a_mqa", (2048, 576), Dtype.Q8_0
    yield "attn_kv_a_norm", (512,), Dtype.F32
    yield "attn_k_b", (128, 512, 16), Dtype.Q8_0
    yield "attn_v_b", (512, 128, 16), Dtype.Q8_0
    yield "attn_output", (2048, 2048), Dtype.Q8_0
    yield "ffn_norm", (2048,), Dtype.F32
    if dense:
        yield "ffn_gate", (2048, 10944), Dtype.Q8_0
        yield "ffn_up", (2048, 10944), Dtype.Q8_0
        yield "ffn_down", (10944, 2048), Dtype.Q8_0
        return
    yield "ffn_gate_inp", (2048, 64), Dtype.F32
    for name, inner, outer in (("gate", 2048, 1408), ("up", 2048, 1408), ("down", 1408, 2048)):
        yield f"ffn_{name}_exps", (inner, outer, 64), Dtype.Q8_0
        yield (
            f"ffn_{name}_shexp",
            (2 * inner if name == "down" else inner, outer if name == "down" else 2816),
            Dtype.Q8_0,
        )


def jamba(*, layers: int = 8, vocabulary: int = 1024, width: int = 1024) -> GgufBuilder:
    """A hybrid: one attention layer in eight (the fifth), the others recurrent; experts on every second layer."""
    gguf = GgufBuilder("jamba")
    inner, state, rank, experts, hidden = 2 * width, 16, width // 16, 4, 2 * width
    gguf.text("general.type", "model").text("general.name", "Jamba Tiny").text("general.size_label", "4x100M")
    gguf.number("general.file_type", 7)
    gguf.own(block_count=layers, context_length=262144, embedding_length=width, feed_forward_length=hidden)
    gguf.own(attention__head_count=16, attention__layer_norm_rms_epsilon=1e-6, vocab_size=vocabulary)
    gguf.numbers("jamba.attention.head_count_kv", [8 if layer % 8 == 4 else 0 for layer in range(layers)])
    gguf.own(ssm__conv_kernel=4, ssm__inner_size=inner, ssm__state_size=state, ssm__time_step_rank=rank)
    gguf.own(expert_count=experts, expert_used_count=2)
    sentencepiece_vocabulary(gguf, vocabulary)
    gguf.tensor("token_embd.weight", (width, vocabulary), Dtype.Q8_0)
    for layer in range(layers):
        mixer = _attention(width) if layer % 8 == 4 else _recurrent(width, inner, state, rank)
        for name, dims, dtype in (*mixer, *_jamba_feed_forward(width, hidden, experts if layer % 2 else 0)):
            gguf.tensor(f"blk.{layer}.{name}", dims, dtype)
    return gguf.tensor("output_norm.weight", (width,)).tensor("output.weight", (width, vocabulary), Dtype.Q8_0)


def _attention(width: int) -> Iterator[tuple[str, tuple[int, ...], Dtype]]:
    yield "attn_norm.weight", (width,), Dtype.F32
    for name, outer in (("q", width), ("k", width // 2), ("v", width // 2), ("output", width)):
        yield f"attn_{name}.weight", (width, outer), Dtype.Q8_0


def _recurrent(width: int, inner: int, state: int, rank: int) -> Iterator[tuple[str, tuple[int, ...], Dtype]]:
    yield "attn_norm.weight", (width,), Dtype.F32
    yield "ssm_in.weight", (width, 2 * inner), Dtype.Q8_0
    yield "ssm_conv1d.weight", (4, inner), Dtype.F32
    yield "ssm_conv1d.bias", (inner,), Dtype.F32
    yield "ssm_x.weight", (inner, rank + 2 * state), Dtype.Q8_0
    yield "ssm_dt.weight", (rank, inner), Dtype.F32
    yield "ssm_dt.bias", (inner,), Dtype.F32
    yield "ssm_a", (state, inner), Dtype.F32
    yield "ssm_d", (inner,), Dtype.F32
    yield "ssm_dt_norm.weight", (rank,), Dtype.F32
    yield "ssm_b_norm.weight", (state,), Dtype.F32
    yield "ssm_c_norm.weight", (state,), Dtype.F32
    yield "ssm_out.weight", (inner, width), Dtype.Q8_0


def _jamba_feed_forward(width: int, hidden: int, experts: int) -> Iterator[tuple[str, tuple[int, ...], Dtype]]:
    suffix, stack = ("_exps", (experts,)) if experts else ("", ())
    yield "ffn_norm.weight", (width,), Dtype.F32
    if experts:
        yield "ffn_gate_inp.weight", (width, experts), Dtype.F32
    yield f"ffn_gate{suffix}.weight", (width, hidden, *stack), Dtype.Q8_0
    yield f"ffn_up{suffix}.weight", (width, hidden, *stack), Dtype.Q8_0
    yield f"ffn_down{suffix}.weight", (hidden, width, *stack), Dtype.Q8_0
