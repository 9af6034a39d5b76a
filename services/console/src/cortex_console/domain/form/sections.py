"""Which fields stand together, and in which order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cortex_console.domain.form.fields import FormField, Widget, label_of

DEFAULTS = "request_defaults"
GROUPS: Mapping[str, str] = {"basic": "Basic", "performance": "Performance", "advanced": "Advanced"}
_BY_SOURCE = frozenset({"local_path", "repo_id"})
"""Chosen before the form, and shown in its head."""


@dataclass(frozen=True, slots=True)
class Section:
    """A title and fields."""

    group: str
    title: str
    fields: tuple[FormField, ...]


_ORDER: Sequence[tuple[str, str, str]] = (
    ("basic", "Names", "name served_model_name aliases task"),
    (
        "basic",
        "Size",
        "context_size parallel_slots ngl mmproj_path max_model_len gpu_memory_utilization tp_size quantization",
    ),
    ("basic", "Running", "lifecycle idle_ttl_s replicas placement"),
    ("basic", "Chat", "tool_call_parser reasoning_parser"),
    ("basic", "Defaults of requests", "request_defaults"),
    ("basic", "Access", "hf_token"),
    ("performance", "Batches", "batch_size ubatch_size max_num_batched_tokens max_num_seqs cont_batching "),
    (
        "performance",
        "Attention and KV cache",
        (
            "flash_attention attention_backend cache_type_k cache_type_v kv_cache_dtype kv_unified kv_unified_per_slot kv_offload "
            "kv_cache_memory_bytes kv_offloading_size block_size cache_ram_mib cache_reuse enable_prefix_caching "
            "enable_chunked_prefill"
        ),
    ),
    (
        "performance",
        "GPUs and memory",
        (
            "split_mode tensor_split main_gpu fit fit_target_mib n_cpu_moe cpu_moe n_cpu_ffn pipeline_parallel_size "
            "data_parallel_size enable_expert_parallel cpu_offload_gb dtype load_mode mlock no_mmap"
        ),
    ),
    ("performance", "Threads", "threads threads_batch numa_policy"),
    (
        "performance",
        "Speculative decoding",
        "draft_model_path draft_repo_id spec_type speculative_method draft_n draft_n_min draft_p_min draft_ngl",
    ),
    ("performance", "Graphs and scheduling", ""),
    ("advanced", "Routing and time", "fallbacks startup_timeout_s stop_timeout_s request_timeout_s stream_timeout_s"),
    (
        "advanced",
        "Templates and reasoning",
        (
            "chat_template chat_template_file chat_template_kwargs chat_template_content_format jinja_enabled reasoning "
            "reasoning_format reasoning_effort reasoning_budget grammar_file"
        ),
    ),
    (
        "advanced",
        "LoRA adapters",
        (
            "enable_lora lora_adapters lora_modules lora_init_without_apply max_loras max_lora_rank max_cpu_loras "
            "fully_sharded_loras"
        ),
    ),
    (
        "advanced",
        "Images and embeddings",
        (
            "mmproj_offload image_min_tokens image_max_tokens limit_mm_per_prompt mm_processor_kwargs mm_processor_cache_gb "
            "language_model_only pooling embd_normalize pooler_config"
        ),
    ),
    (
        "advanced",
        "RoPE",
        (
            "rope_scaling rope_scale rope_freq_base rope_freq_scale yarn_orig_ctx yarn_ext_factor yarn_attn_factor "
            "yarn_beta_slow yarn_beta_fast"
        ),
    ),
    ("advanced", "Engine", "extra_args extra_env engine_image"),
    ("advanced", "Further", ""),
)
_REST = {"basic": "Chat", "performance": "Graphs and scheduling", "advanced": "Further"}
_COMMON_DEFAULTS: Mapping[str, tuple[str, float, float | None]] = {
    "temperature": ("0 is always the likeliest token, 1 as the model was trained.", 0, 2),
    "top_p": ("Only the likeliest tokens that sum up to this.", 0, 1),
    "top_k": ("Only this many of the likeliest tokens.", -1, None),
    "min_p": ("Only tokens at least this likely, relative to the likeliest.", 0, 1),
    "max_tokens": ("Length of an answer when a request does not say.", 1, None),
}
_WHOLE_DEFAULTS = frozenset({"top_k", "max_tokens"})


def sections_of(fields: Iterable[FormField], task: str = "generate") -> tuple[Section, ...]:
    """All sections that have fields, in order. No field of the engine is left out, whatever its registry's version."""
    known = {field.name: field for field in fields if field.name not in _BY_SOURCE}
    placed = {name for _, _, names in _ORDER for name in names.split()}
    found: list[Section] = []
    for group, title, names in _ORDER:
        members = [known[name] for name in names.split() if name in known]
        if title == _REST[group]:
            members += [field for field in known.values() if field.group == group and field.name not in placed]
        if DEFAULTS in names.split() and DEFAULTS in known and task == "generate":
            members = [*common_defaults(), *members]
        if members:
            found.append(Section(group, title, tuple(members)))
    return tuple(found)


def common_defaults() -> tuple[FormField, ...]:
    """The request parameters that people set most, as fields of their own."""
    return tuple(
        FormField(
            name=f"{DEFAULTS}.{name}",
            label=label_of(f"{DEFAULTS}.{name}"),
            help=said,
            widget=Widget.NUMBER,
            group="basic",
            nullable=True,
            whole=name in _WHOLE_DEFAULTS,
            minimum=least,
            maximum=most,
        )
        for name, (said, least, most) in _COMMON_DEFAULTS.items()
    )


def owner_of(field: str, names: Iterable[str]) -> str | None:
    """The input that shows an error or warning about `field`, like `aliases` for `aliases.0`; None when none does."""
    known = set(names)
    while field:
        if field in known:
            return field
        field = field.rpartition(".")[0]
    return None
