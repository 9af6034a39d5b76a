"""vLLM: options of a model to the command line of `vllm serve` (flags of 0.32)."""

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.engines import VllmOptions
from cortex_contracts.enums import EngineType, Task
from cortex_orchestrator.domain.engines.base import BuildRequest, Engine, model_file
from cortex_orchestrator.domain.spec import HOST, PORT, Command, SpecError, StopPolicy

GIB = 1024**3
SHARED_MEMORY_BYTES = 8 * GIB
"""Workers exchange tensors through shared memory; 64 MB, the default of a container, makes them fail."""

EXIT_MARGIN_S = 10
"""What vLLM takes to leave after it has drained."""

ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


def build(request: BuildRequest) -> Command:
    """The command of one replica.

    Raises:
        SpecError: there is no model to serve, or it is a GGUF file.
    """
    model = request.model
    options = model.vllm or VllmOptions()
    words = [_source(request), "--served-model-name", model.served_model_name, "--host", HOST, "--port", PORT]
    words += _valued(_memory(options) | _parallelism(options) | _loading(options))
    words += _switches(options)
    words += _task(model.task)
    words += ["--shutdown-timeout", str(_shutdown_timeout(model.stop_timeout_s))]
    return Command(
        argv=(*words, *model.extra_args),
        api_key_env="VLLM_API_KEY",
        env=ENVIRONMENT | _offline(model) | model.extra_env,
        entrypoint=("vllm", "serve"),
        shm_bytes=SHARED_MEMORY_BYTES,
        read_only_root=False,
        hub_cache=True,
    )


def _source(request: BuildRequest) -> str:
    model = request.model
    if model.local_path is not None:
        if model.local_path.lower().endswith(".gguf"):
            raise SpecError("gguf_needs_llamacpp", "vLLM cannot serve a GGUF file: use engine_type llamacpp.")
        return model_file(request, model.local_path)
    if model.repo_id is not None:
        return model.repo_id
    raise SpecError("model_path_missing", "A vLLM model needs repo_id or local_path.")


def _offline(model: ModelDocumentV1) -> dict[str, str]:
    return {"HF_HUB_OFFLINE": "1"} if model.local_path is not None else {}


def _memory(options: VllmOptions) -> dict[str, object]:
    return {
        "--gpu-memory-utilization": options.gpu_memory_utilization,
        "--max-model-len": options.max_model_len,
        "--kv-cache-dtype": options.kv_cache_dtype,
        "--max-num-batched-tokens": options.max_num_batched_tokens,
        "--max-num-seqs": options.max_num_seqs,
        "--block-size": options.block_size,
        "--cpu-offload-gb": options.cpu_offload_gb,
    }


def _parallelism(options: VllmOptions) -> dict[str, object]:
    return {
        "--tensor-parallel-size": options.tp_size,
        "--pipeline-parallel-size": options.pipeline_parallel_size,
    }


def _loading(options: VllmOptions) -> dict[str, object]:
    return {
        "--dtype": options.dtype,
        "--quantization": options.quantization,
        "--tokenizer": options.tokenizer,
        "--hf-config-path": options.hf_config_path,
        "--attention-backend": options.attention_backend,
        "--prefix-caching-hash-algo": options.prefix_caching_hash_algo,
        "--reasoning-parser": options.reasoning_parser,
    }


def _valued(flags: dict[str, object]) -> list[str]:
    return [word for name, value in flags.items() if value is not None for word in (name, str(value))]


def _switches(options: VllmOptions) -> list[str]:
    words: list[str] = ["--enable-prompt-tokens-details"]
    if options.enforce_eager:
        words.append("--enforce-eager")
    if options.trust_remote_code:
        words.append("--trust-remote-code")
    words += _either("enable-prefix-caching", options.enable_prefix_caching)
    words += _either("enable-chunked-prefill", options.enable_chunked_prefill)
    if options.tool_call_parser is not None:
        words += ["--enable-auto-tool-choice", "--tool-call-parser", options.tool_call_parser]
    return words


def _either(name: str, value: bool | None) -> list[str]:
    if value is None:
        return []
    return [f"--{name}" if value else f"--no-{name}"]


def _task(task: Task) -> list[str]:
    match task:
        case Task.GENERATE:
            return []
        case Task.EMBED:
            return ["--runner", "pooling", "--convert", "embed"]
        case Task.RERANK:
            return ["--runner", "pooling", "--convert", "classify"]


def _shutdown_timeout(stop_timeout_s: int) -> int:
    return max(1, stop_timeout_s - EXIT_MARGIN_S)


def stop_policy(timeout_s: int) -> StopPolicy:
    """vLLM drains for `--shutdown-timeout` seconds and needs a margin on top before it may be killed."""
    return StopPolicy(deadline_s=float(_shutdown_timeout(timeout_s) + EXIT_MARGIN_S))


ENGINE = Engine(EngineType.VLLM, "vllm", False, build, stop_policy)
