"""Memory of vLLM per GPU from a model's config.json and the size of its safetensors. Pure.

vLLM takes its share of a GPU whatever it needs: weights first, room for one batch, and the rest is cache. So the
question is how many tokens the rest holds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from cortex_contracts.engines import VllmOptions
from cortex_contracts.estimates import DeviceV1, MemoryV1

GIB = 1 << 30
DEFAULT_BATCHED_TOKENS = 8_192
RUNTIME = GIB
"""CUDA context, captured graphs, communication buffers of one GPU. A guess: no GPU was at hand to measure it."""
_UNUSUAL = ("linear_attention", "mamba", "recurrent", "conv")
_UNUSUAL_KEYS = (
    "ssm_cfg",
    "mamba_d_state",
    "attn_layer_period",
    "linear_num_key_heads",
    "index_topk",
    "conv_L_cache",
    "encoder_layers",
)
_ELEMENT = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class VllmFacts:
    """A Hugging Face model as the estimator sees it. `unknown` is why its cache cannot be computed."""

    architecture: str
    layers: int
    sliding_layers: int
    window: int
    heads_kv: int
    head_dim: int
    latent: int
    """Width of the one compressed key of MLA; 0 without."""
    hidden: int
    intermediate: int
    vocab: int
    context_length: int
    element: int
    weights: int
    unknown: str | None


def vllm_facts(config: Mapping[str, Any], weights: int) -> VllmFacts:
    """Facts from a parsed config.json; never raises for odd content."""
    text = config.get("text_config")
    inner: Mapping[str, Any] = {**config, **text} if isinstance(text, Mapping) else config
    heads = _number(inner, "num_attention_heads")
    hidden = _number(inner, "hidden_size")
    latent = _number(inner, "kv_lora_rank")
    kinds = _texts(inner, "layer_types")
    layers = _number(inner, "num_hidden_layers")
    window = _number(inner, "sliding_window")
    sliding = sum(1 for kind in kinds if "sliding" in kind) if window else 0
    if window and not kinds and inner.get("use_sliding_window") is not False and inner.get("model_type") == "mistral":
        sliding = layers
    return VllmFacts(
        architecture=_architecture(config),
        layers=layers,
        sliding_layers=sliding,
        window=window,
        heads_kv=_number(inner, "num_key_value_heads") or heads,
        head_dim=_number(inner, "head_dim") or (hidden // heads if heads else 0),
        latent=latent + _number(inner, "qk_rope_head_dim") if latent else 0,
        hidden=hidden,
        intermediate=max(_number(inner, "intermediate_size"), _number(inner, "moe_intermediate_size")),
        vocab=_number(inner, "vocab_size"),
        context_length=_number(inner, "max_position_embeddings"),
        element=_ELEMENT.get(str(inner.get("dtype") or inner.get("torch_dtype") or "bfloat16"), 2),
        weights=weights,
        unknown=_unknown(inner, kinds),
    )


def _architecture(config: Mapping[str, Any]) -> str:
    names = _texts(config, "architectures")
    return names[0] if names else str(config.get("model_type") or "")


def _texts(config: Mapping[str, Any], key: str) -> list[str]:
    value = config.get(key)
    return [str(item) for item in cast("list[object]", value)] if isinstance(value, list) else []


def _number(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _unknown(config: Mapping[str, Any], kinds: Sequence[str]) -> str | None:
    missing = [key for key in ("num_hidden_layers", "hidden_size", "num_attention_heads") if not _number(config, key)]
    if missing:
        return f"config.json does not say {', '.join(missing)}"
    odd = [key for key in _UNUSUAL_KEYS if config.get(key)] + [
        kind for kind in sorted(set(kinds)) if any(sign in kind for sign in _UNUSUAL)
    ]
    if odd:
        return f"its cache is not one of keys and values alone ({odd[0]})"
    return None


@dataclass(frozen=True, slots=True)
class VllmEstimate:
    """Per GPU, and what the cache of all of them holds. Tokens None when unknown."""

    devices: tuple[MemoryV1, ...]
    kv_bytes_per_token: int
    cache_tokens: int | None
    max_model_len: int
    largest_context: int | None
    max_concurrency: float | None
    fits: bool | None
    unknown: str | None
    warnings: tuple[str, ...]


def estimate_vllm(facts: VllmFacts, options: VllmOptions, devices: Sequence[DeviceV1]) -> VllmEstimate:
    """Memory with these options on the first tp x pp devices."""
    ranks = options.tp_size * options.pipeline_parallel_size
    warnings: list[str] = []
    if devices and len(devices) < ranks:
        warnings.append(f"{ranks} GPUs are asked for (tensor x pipeline parallel), {len(devices)} are given")
    weights = math.ceil(facts.weights / ranks)
    tokens = options.max_num_batched_tokens or DEFAULT_BATCHED_TOKENS
    rows = 4 * facts.hidden + 3 * math.ceil(facts.intermediate / options.tp_size)
    seats = min(options.max_num_seqs or 256, tokens)
    compute = tokens * rows * facts.element + seats * facts.vocab * 4
    per_token = _per_token(facts, options)
    wanted = options.max_model_len or facts.context_length
    memories: list[MemoryV1] = []
    for device in list(devices)[:ranks]:
        total = device.memory_total or device.memory_free
        share = int(total * options.gpu_memory_utilization)
        cache = max(0, share - weights - compute - RUNTIME)
        taken = weights + compute + RUNTIME + cache
        memories.append(
            MemoryV1(
                device=device.name,
                weights=weights,
                kv=cache,
                compute=compute,
                other=RUNTIME,
                total=taken,
                free=device.memory_free,
                fits=taken <= device.memory_free and taken <= share,
                layers=math.ceil(facts.layers / options.pipeline_parallel_size),
            )
        )
    return _with_tokens(facts, (per_token, wanted), memories, warnings)


def _per_token(facts: VllmFacts, options: VllmOptions) -> int:
    """Bytes one rank keeps of one token. Heads are shared out; MLA's latent key is on every rank."""
    element = 1 if (options.kv_cache_dtype or "").startswith(("fp8", "int8")) else facts.element
    layers = math.ceil(facts.layers / options.pipeline_parallel_size)
    if facts.latent:
        return layers * facts.latent * element
    heads = max(1, math.ceil(facts.heads_kv / options.tp_size))
    return layers * 2 * heads * facts.head_dim * element


def _with_tokens(
    facts: VllmFacts, sizes: tuple[int, int], memories: Sequence[MemoryV1], warnings: list[str]
) -> VllmEstimate:
    per_token, wanted = sizes
    fit = None if not memories else all(memory.fits is not False for memory in memories)
    known = facts.unknown is None and per_token > 0 and bool(memories)
    room = min((memory.kv for memory in memories), default=0)
    cache = room // per_token if known else None
    sliding = facts.sliding_layers / facts.layers if facts.layers else 0.0

    def cost(length: int) -> float:
        """Bytes of one request; sliding layers keep the window and one batch."""
        seen = min(length, facts.window + DEFAULT_BATCHED_TOKENS)
        return per_token * (length * (1 - sliding) + seen * sliding)

    largest_length = None
    if known:
        largest_length = facts.context_length
        if largest_length and cost(largest_length) > room:
            over = room - per_token * sliding * (facts.window + DEFAULT_BATCHED_TOKENS)
            longest = over / (per_token * (1 - sliding)) if sliding < 1 else 0.0
            largest_length = max(0, int(longest), int(room / per_token))
    concurrency = room / cost(wanted) if known and wanted else None
    if concurrency is not None and concurrency < 1:
        fit = False
        warnings.append(f"the cache does not hold one request of {wanted} tokens: vLLM refuses to start")
    if known:
        warnings.append("the memory beside weights and cache (1 GiB and one batch per GPU) is a rule of thumb")
    return VllmEstimate(
        tuple(memories), per_token, cache, wanted, largest_length, concurrency, fit, facts.unknown, tuple(warnings)
    )
