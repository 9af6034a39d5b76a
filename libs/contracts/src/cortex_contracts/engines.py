"""Engine options: the typed, per-engine part of a model's specification.

Field names are the administrator's (REST API, database columns). How they become flags is the orchestrator's business.
"""

from typing import Literal

from pydantic import Field

from cortex_contracts.base import ContractModel

KvCacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]


class LoraAdapter(ContractModel):
    """A LoRA adapter file inside the models root."""

    path: str
    scale: float = 1.0


class LlamaCppOptions(ContractModel):
    """Options of a llama-server. `None` leaves the choice to the engine."""

    ngl: int | None = Field(default=None, ge=0, description="GPU layers; 0 is CPU only, None lets the engine fit them")
    tensor_split: str | None = Field(
        default=None, max_length=128, pattern=r"^\d+(\.\d+)?([,/]\d+(\.\d+)?)*$", description="proportions, e.g. 3,1"
    )
    batch_size: int = Field(default=512, ge=1, le=1_048_576)
    threads: int | None = Field(default=None, ge=1, le=4096)
    context_size: int = Field(default=8192, ge=0, description="tokens; 0 takes the model's own context")
    rope_freq_base: float | None = Field(default=None, gt=0)
    rope_freq_scale: float | None = Field(default=None, gt=0)
    flash_attention: bool = True
    mlock: bool = False
    no_mmap: bool = False
    numa_policy: Literal["distribute", "isolate", "numactl"] | None = None
    split_mode: Literal["none", "layer", "row", "tensor"] | None = None

    ubatch_size: int | None = Field(default=None, ge=1)
    parallel_slots: int | None = Field(default=None, ge=1, le=1024)
    kv_unified: bool | None = None
    cache_type_k: KvCacheType | None = None
    cache_type_v: KvCacheType | None = None
    cache_ram_mib: int | None = Field(default=None, ge=-1, description="host RAM prompt cache, MiB; 0 is off")
    check_tensors: bool = False
    skip_warmup: bool = False
    jinja_enabled: bool | None = None
    chat_template: str | None = None
    chat_template_file: str | None = None
    mmproj_path: str | None = None
    draft_model_path: str | None = None
    draft_n: int | None = Field(default=None, ge=1)
    draft_p_min: float | None = Field(default=None, ge=0, le=1)
    lora_adapters: tuple[LoraAdapter, ...] = ()
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = None
    verbose_logging: bool = False


class VllmOptions(ContractModel):
    """Options of `vllm serve`. `None` leaves the choice to the engine."""

    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = "auto"
    tp_size: int = Field(default=1, ge=1, le=1024)
    pipeline_parallel_size: int = Field(default=1, ge=1, le=1024)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_model_len: int | None = Field(default=None, ge=1)
    kv_cache_dtype: str | None = None
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    max_num_seqs: int | None = Field(default=None, ge=1)
    quantization: str | None = None
    block_size: int | None = Field(default=None, ge=1)
    cpu_offload_gb: float | None = Field(default=None, ge=0)
    enforce_eager: bool = False
    trust_remote_code: bool = False
    enable_prefix_caching: bool | None = None
    prefix_caching_hash_algo: Literal["sha256", "sha256_cbor", "xxhash", "xxhash_cbor"] | None = None
    enable_chunked_prefill: bool | None = None
    tokenizer: str | None = None
    hf_config_path: str | None = None
    attention_backend: str | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
