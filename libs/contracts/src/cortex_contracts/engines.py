"""Engine options: the typed, per-engine part of a model's specification.

Field names are the administrator's (REST API, database columns). How they become flags is the orchestrator's business.
`None` (and an empty list or object) leaves the choice to the engine. A `description` is what the console shows.
"""

from typing import Literal

from pydantic import Field, JsonValue

from cortex_contracts.base import ContractModel

KvCacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]
_NO_DASH = r"^[^-\s][^\x00-\x1f]*$"
_OVERRIDE_TENSOR = r"^[^=,\s-][^=,\s]*=[A-Za-z0-9_]+(,[^=,\s]+=[A-Za-z0-9_]+)*$"
_OVERRIDE_KV = r"^[A-Za-z0-9_.]+=(int|float|bool|str):[^,\s]+(,[A-Za-z0-9_.]+=(int|float|bool|str):[^,\s]+)*$"


class LoraAdapter(ContractModel):
    """A LoRA adapter file (GGUF) inside the models root, applied to every request of a llama.cpp model."""

    path: str = Field(description="GGUF file of the adapter, below the models folder")
    scale: float = Field(default=1.0, description="strength; 1 is as trained, 0 is off")


class LoraModule(ContractModel):
    """A LoRA adapter of a vLLM model, asked for by its own name. Exactly one of `path` and `repo_id` is set."""

    name: str = Field(
        min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", description="name in requests"
    )
    path: str | None = Field(default=None, description="folder of the adapter, below the models folder")
    repo_id: str | None = Field(default=None, pattern=_NO_DASH, description="Hugging Face repository of the adapter")


class LlamaCppOptions(ContractModel):
    """Options of a llama-server."""

    ngl: int | None = Field(default=None, ge=0, description="GPU layers; 0 is CPU only, None lets the engine fit them")
    tensor_split: str | None = Field(
        default=None,
        max_length=128,
        pattern=r"^\d+(\.\d+)?([,/]\d+(\.\d+)?)*$",
        description="share of the model on each GPU as proportions, e.g. 3,1",
    )
    batch_size: int = Field(default=512, ge=1, le=1_048_576, description="tokens handed to the model at once (logical)")
    threads: int | None = Field(default=None, ge=1, le=4096, description="CPU threads while generating")
    context_size: int = Field(
        default=8192, ge=0, description="tokens of all slots together; 0 takes the model's own context"
    )
    rope_freq_base: float | None = Field(default=None, gt=0, description="RoPE base frequency")
    rope_freq_scale: float | None = Field(default=None, gt=0, description="RoPE frequency factor; 0.5 doubles context")
    flash_attention: bool = Field(default=True, description="flash attention; a quantized V cache needs it")
    mlock: bool = Field(default=False, description="keep the model in RAM, never swapped out")
    no_mmap: bool = Field(default=False, description="read the file into memory instead of mapping it")
    numa_policy: Literal["distribute", "isolate", "numactl"] | None = Field(
        default=None, description="placement of threads on hosts with several NUMA nodes"
    )
    split_mode: Literal["none", "layer", "row", "tensor"] | None = Field(
        default=None, description="how several GPUs share the model"
    )

    ubatch_size: int | None = Field(default=None, ge=1, description="tokens computed at once (physical)")
    parallel_slots: int | None = Field(default=None, ge=1, le=1024, description="requests served at the same time")
    kv_unified: bool | None = Field(
        default=None, description="one KV cache shared by all slots; off gives each slot an equal part"
    )
    cache_type_k: KvCacheType | None = Field(default=None, description="data type of the K cache")
    cache_type_v: KvCacheType | None = Field(default=None, description="data type of the V cache")
    cache_ram_mib: int | None = Field(default=None, ge=-1, description="host RAM prompt cache, MiB; 0 is off")
    check_tensors: bool = Field(default=False, description="look for invalid values while loading (slower)")
    skip_warmup: bool = Field(default=False, description="no empty run after loading")
    jinja_enabled: bool | None = Field(default=None, description="render chat templates with Jinja; tools need it")
    chat_template: str | None = Field(default=None, description="name of a built-in chat template, or its text")
    chat_template_file: str | None = Field(default=None, description="chat template file, below the models folder")
    mmproj_path: str | None = Field(default=None, description="projector (GGUF) for images or audio")
    draft_model_path: str | None = Field(default=None, description="small GGUF model that drafts tokens")
    draft_n: int | None = Field(default=None, ge=1, description="most tokens drafted at once")
    draft_p_min: float | None = Field(default=None, ge=0, le=1, description="probability below which drafting stops")
    lora_adapters: tuple[LoraAdapter, ...] = Field(default=(), description="LoRA adapters, applied to all requests")
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = Field(
        default=None, description="how token vectors become one embedding"
    )
    verbose_logging: bool = Field(default=False, description="more of the engine's own log")

    threads_batch: int | None = Field(default=None, ge=1, le=4096, description="CPU threads while reading prompts")
    threads_http: int | None = Field(default=None, ge=1, le=4096, description="threads that serve HTTP")
    main_gpu: int | None = Field(default=None, ge=0, description="the GPU for split_mode none, or for KV with row")
    kv_offload: bool | None = Field(default=None, description="KV cache on the GPU; off keeps it in host RAM")
    n_cpu_moe: int | None = Field(
        default=None, ge=0, description="layers whose experts stay in host RAM, counted from the first"
    )
    cpu_moe: bool = Field(default=False, description="all experts stay in host RAM")
    n_cpu_ffn: int | None = Field(
        default=None,
        ge=0,
        description="layers whose dense feed-forward weights stay in host RAM (build 11434 or newer)",
    )
    override_tensor: str | None = Field(
        default=None,
        max_length=2048,
        pattern=_OVERRIDE_TENSOR,
        description="where tensors go, pattern=buffer, e.g. blk\\.[0-9]\\.ffn_.*_exps\\.=CPU",
    )
    override_kv: str | None = Field(
        default=None, max_length=2048, pattern=_OVERRIDE_KV, description="metadata of the model changed, key=type:value"
    )
    fit: bool | None = Field(
        default=None, description="let the engine shrink what is not set until it fits into GPU memory"
    )
    fit_target_mib: int | None = Field(default=None, ge=0, description="GPU memory that fitting leaves free, MiB")
    repack: bool | None = Field(default=None, description="re-lay weights for the CPU (needs RAM beside the file)")
    op_offload: bool | None = Field(default=None, description="compute on the GPU what lies in host RAM")
    load_mode: Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"] | None = Field(
        default=None, description="how the file is read; replaces mlock and no_mmap"
    )
    lazy_mode: Literal["on", "auto", "off"] | None = Field(
        default=None, description="read rarely used tensors from disk on demand (build 11434 or newer)"
    )

    cont_batching: bool | None = Field(default=None, description="requests join a running batch")
    kv_unified_per_slot: int | None = Field(
        default=None, ge=1, description="most tokens of one slot in a shared KV cache (build 11434 or newer)"
    )
    swa_full: bool = Field(default=False, description="full-size cache for sliding-window layers (more memory)")
    ctx_checkpoints: int | None = Field(
        default=None, ge=0, le=4096, description="snapshots per slot for sliding-window and recurrent models"
    )
    context_shift: bool | None = Field(default=None, description="drop the oldest tokens when the context is full")
    cache_prompt: bool | None = Field(default=None, description="reuse the KV cache of the same beginning")
    cache_reuse: int | None = Field(
        default=None, ge=0, description="shortest chunk, tokens, reused from the cache by shifting; 0 is off"
    )
    slot_prompt_similarity: float | None = Field(
        default=None, ge=0, le=1, description="how much of a prompt a slot must hold to be preferred"
    )
    server_timeout_s: int | None = Field(
        default=None, ge=1, le=86_400, description="engine's own read and write timeout, seconds"
    )

    rope_scaling: Literal["none", "linear", "yarn"] | None = Field(default=None, description="RoPE scaling method")
    rope_scale: float | None = Field(default=None, gt=0, description="RoPE context factor; 2 doubles the context")
    yarn_orig_ctx: int | None = Field(
        default=None, ge=0, description="YaRN: context the model was trained with, tokens"
    )
    yarn_ext_factor: float | None = Field(default=None, description="YaRN: extrapolation mix; 0 is interpolation only")
    yarn_attn_factor: float | None = Field(default=None, description="YaRN: attention magnitude")
    yarn_beta_slow: float | None = Field(default=None, description="YaRN: high correction dimension")
    yarn_beta_fast: float | None = Field(default=None, description="YaRN: low correction dimension")

    chat_template_kwargs: dict[str, JsonValue] = Field(
        default_factory=dict, description='arguments of the chat template, e.g. {"enable_thinking": false}'
    )
    reasoning: Literal["on", "off", "auto"] | None = Field(default=None, description="whether chats think first")
    reasoning_format: Literal["none", "deepseek", "deepseek-legacy", "auto"] | None = Field(
        default=None, description="where thoughts go in an answer"
    )
    reasoning_effort: str | None = Field(
        default=None,
        max_length=32,
        pattern=r"^[a-z]+$",
        description="effort told to the template: low, medium, high, …",
    )
    reasoning_budget: int | None = Field(
        default=None, ge=-1, description="tokens for thoughts; -1 is no limit, 0 ends them at once"
    )
    grammar_file: str | None = Field(
        default=None, description="grammar (GBNF) that every answer follows, below the models folder"
    )

    spec_type: str | None = Field(
        default=None,
        max_length=128,
        pattern=r"^[a-z0-9]+(-[a-z0-9]+)*(,[a-z0-9]+(-[a-z0-9]+)*)*$",
        description="speculative decoding: draft-simple, draft-mtp, draft-eagle3, ngram-simple, …",
    )
    draft_n_min: int | None = Field(default=None, ge=0, description="fewest tokens worth a draft")
    draft_ngl: int | None = Field(default=None, ge=0, description="GPU layers of the draft model")
    draft_cache_type_k: KvCacheType | None = Field(default=None, description="data type of the draft's K cache")
    draft_cache_type_v: KvCacheType | None = Field(default=None, description="data type of the draft's V cache")
    lora_init_without_apply: bool = Field(
        default=False, description="load LoRA adapters switched off; requests choose them"
    )

    mmproj_offload: bool | None = Field(default=None, description="projector on the GPU")
    image_min_tokens: int | None = Field(default=None, ge=1, description="fewest tokens of an image")
    image_max_tokens: int | None = Field(default=None, ge=1, description="most tokens of an image")
    embd_normalize: int | None = Field(
        default=None, ge=-1, description="norm of embeddings: -1 none, 0 max, 1 taxicab, 2 euclidean"
    )


class VllmOptions(ContractModel):
    """Options of `vllm serve`."""

    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = Field(
        default="auto", description="data type of weights and activations"
    )
    tp_size: int = Field(default=1, ge=1, le=1024, description="GPUs that share every layer (tensor parallel)")
    pipeline_parallel_size: int = Field(default=1, ge=1, le=1024, description="stages of layers, each on its own GPUs")
    gpu_memory_utilization: float = Field(
        default=0.9, gt=0, le=1, description="share of a GPU's memory that this replica may take"
    )
    max_model_len: int | None = Field(default=None, ge=1, description="tokens of prompt and answer together")
    kv_cache_dtype: str | None = Field(default=None, description="data type of the KV cache: auto, bfloat16, fp8, …")
    max_num_batched_tokens: int | None = Field(default=None, ge=1, description="tokens computed in one step")
    max_num_seqs: int | None = Field(default=None, ge=1, description="requests computed in one step")
    quantization: str | None = Field(default=None, description="awq, gptq, fp8, compressed-tensors, mxfp4, …")
    block_size: int | None = Field(default=None, ge=1, description="tokens of one KV cache block")
    cpu_offload_gb: float | None = Field(default=None, ge=0, description="weights kept in host RAM per GPU, GiB")
    enforce_eager: bool = Field(default=False, description="no CUDA graphs: starts sooner, answers slower")
    trust_remote_code: bool = Field(default=False, description="run Python code that comes with the model")
    enable_prefix_caching: bool | None = Field(default=None, description="reuse the KV cache of the same beginning")
    prefix_caching_hash_algo: Literal["sha256", "sha256_cbor", "xxhash", "xxhash_cbor"] | None = Field(
        default=None, description="hash of prefix caching"
    )
    enable_chunked_prefill: bool | None = Field(default=None, description="long prompts are computed in parts")
    tokenizer: str | None = Field(
        default=None, description="tokenizer of another model: repository, or folder below the models folder"
    )
    hf_config_path: str | None = Field(
        default=None, description="configuration of another model: repository, or folder below the models folder"
    )
    attention_backend: str | None = Field(default=None, description="FLASH_ATTN, FLASHINFER, TRITON_ATTN, …")
    tool_call_parser: str | None = Field(default=None, description="reads tool calls out of answers; turns tools on")
    reasoning_parser: str | None = Field(default=None, description="reads thoughts out of answers")

    kv_cache_memory_bytes: int | None = Field(
        default=None, ge=1, description="KV cache per GPU, bytes; replaces gpu_memory_utilization"
    )
    kv_offloading_size: float | None = Field(default=None, gt=0, description="KV cache in host RAM, GiB of all GPUs")
    cuda_graph_sizes: tuple[int, ...] = Field(default=(), max_length=256, description="batch sizes with a CUDA graph")
    max_cudagraph_capture_size: int | None = Field(default=None, ge=0, description="largest batch with a CUDA graph")
    optimization_level: int | None = Field(
        default=None, ge=0, le=3, description="0 starts soonest, 3 answers fastest; the engine takes 2"
    )
    performance_mode: Literal["balanced", "interactivity", "throughput"] | None = Field(
        default=None, description="what kernels and graphs are tuned for"
    )
    data_parallel_size: int | None = Field(default=None, ge=1, le=1024, description="copies inside one replica")
    enable_expert_parallel: bool = Field(default=False, description="experts spread over GPUs instead of split")
    distributed_executor_backend: Literal["mp", "ray", "uni"] | None = Field(
        default=None, description="what runs the workers of several GPUs"
    )
    disable_custom_all_reduce: bool = Field(default=False, description="NCCL instead of the engine's own all-reduce")
    numa_bind: bool = Field(default=False, description="workers on the CPUs and memory next to their GPU")

    enable_lora: bool = Field(default=False, description="accept LoRA adapters; on by itself when there are any")
    lora_modules: tuple[LoraModule, ...] = Field(default=(), max_length=64, description="LoRA adapters")
    max_loras: int | None = Field(default=None, ge=1, description="different adapters in one batch")
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] | None = Field(
        default=None, description="largest rank of an adapter; the engine takes 16"
    )
    max_cpu_loras: int | None = Field(default=None, ge=1, description="adapters kept in host RAM")
    fully_sharded_loras: bool = Field(default=False, description="split adapters over GPUs entirely")

    revision: str | None = Field(
        default=None, max_length=128, pattern=_NO_DASH, description="branch, tag or commit of the repository"
    )
    tokenizer_revision: str | None = Field(
        default=None, max_length=128, pattern=_NO_DASH, description="branch, tag or commit of the tokenizer"
    )
    tokenizer_mode: Literal["auto", "hf", "mistral", "deepseek_v32", "deepseek_v4"] | None = Field(
        default=None, description="kind of tokenizer"
    )
    config_format: Literal["auto", "hf", "mistral"] | None = Field(
        default=None, description="format of the model's configuration"
    )
    model_impl: Literal["auto", "vllm", "transformers", "terratorch"] | None = Field(
        default=None, description="whose implementation of the model runs"
    )
    safetensors_load_strategy: Literal["lazy", "eager", "prefetch"] | None = Field(
        default=None, description="how weights are read; eager or prefetch for network disks"
    )
    hf_overrides: dict[str, JsonValue] = Field(
        default_factory=dict, description="values that replace those of the model's config.json"
    )
    generation_config: Literal["auto", "vllm"] | None = Field(
        default=None, description="auto takes sampling defaults from the model, vllm the engine's own"
    )
    override_generation_config: dict[str, JsonValue] = Field(
        default_factory=dict, description="sampling defaults that replace the model's"
    )
    pooler_config: dict[str, JsonValue] = Field(
        default_factory=dict, description="how token vectors become one embedding"
    )

    chat_template: str | None = Field(default=None, description="text of the chat template")
    chat_template_file: str | None = Field(default=None, description="chat template file, below the models folder")
    chat_template_content_format: Literal["auto", "openai", "string"] | None = Field(
        default=None, description="how message contents reach the template"
    )
    chat_template_kwargs: dict[str, JsonValue] = Field(
        default_factory=dict, description='arguments of the chat template, e.g. {"enable_thinking": false}'
    )
    limit_mm_per_prompt: dict[str, JsonValue] = Field(
        default_factory=dict, description='images, videos, … allowed in a prompt, e.g. {"image": 4}'
    )
    mm_processor_kwargs: dict[str, JsonValue] = Field(
        default_factory=dict, description="arguments of the model's image processor"
    )
    mm_processor_cache_gb: float | None = Field(default=None, ge=0, description="cache of processed media, GiB")
    language_model_only: bool = Field(default=False, description="serve a multi-modal model for text alone")

    scheduling_policy: Literal["fcfs", "priority"] | None = Field(default=None, description="order of waiting requests")
    async_scheduling: bool | None = Field(default=None, description="plan the next step while one computes")
    long_prefill_token_threshold: int | None = Field(
        default=None, ge=0, description="prompts longer than this, tokens, are held back in a batch; 0 is off"
    )
    stream_interval: int | None = Field(default=None, ge=1, description="tokens in one chunk of a stream")
    max_logprobs: int | None = Field(default=None, ge=-1, description="most log probabilities a request may ask for")
    disable_sliding_window: bool = Field(default=False, description="limit the context to the sliding window")

    speculative_method: str | None = Field(
        default=None,
        max_length=64,
        pattern=r"^[a-z0-9][a-z0-9_]*$",
        description="speculative decoding: ngram, draft_model, eagle3, mtp, …",
    )
    draft_model_path: str | None = Field(default=None, description="draft model, folder below the models folder")
    draft_repo_id: str | None = Field(
        default=None, max_length=256, pattern=_NO_DASH, description="Hugging Face repository of the draft model"
    )
    draft_n: int | None = Field(default=None, ge=1, description="tokens drafted at once")
    prompt_lookup_max: int | None = Field(default=None, ge=1, description="ngram: longest match, tokens")
    prompt_lookup_min: int | None = Field(default=None, ge=1, description="ngram: shortest match, tokens")

    enable_log_requests: bool = Field(default=False, description="write prompts to the engine's log")
    max_log_len: int | None = Field(default=None, ge=0, description="most characters of a prompt in the log")
    verbose_logging: bool = Field(default=False, description="more of the engine's own log")
