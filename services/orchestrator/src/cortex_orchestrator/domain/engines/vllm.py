"""vLLM: options of a model to the command line of `vllm serve`, in the spelling of 0.32."""

import re
from collections.abc import Mapping

from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.engines import LoraModule, VllmOptions
from cortex_contracts.enums import EngineType, Task
from cortex_orchestrator.domain.engines.base import BuildRequest, Engine, model_file
from cortex_orchestrator.domain.engines.guard import check_environment, check_vllm
from cortex_orchestrator.domain.engines.rules import Arguments, Kind, Rule, check_known, compact_json
from cortex_orchestrator.domain.engines.vllm_flags import FLAGS, VERSION
from cortex_orchestrator.domain.spec import HOST, PORT, Capabilities, Command, Program, SpecError, StopPolicy

GIB = 1024**3
SHARED_MEMORY_BYTES = 8 * GIB
"""Workers exchange tensors through shared memory; 64 MB, the default of a container, makes them fail."""

EXIT_MARGIN_S = 10
"""What vLLM takes to leave after it has drained."""

ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}

MEMORY = (
    Rule("gpu_memory_utilization", ("--gpu-memory-utilization",)),
    Rule("kv_cache_memory_bytes", ("--kv-cache-memory-bytes",)),
    Rule("max_model_len", ("--max-model-len",), needed=True),
    Rule("kv_cache_dtype", ("--kv-cache-dtype",)),
    Rule("max_num_batched_tokens", ("--max-num-batched-tokens",)),
    Rule("max_num_seqs", ("--max-num-seqs",)),
    Rule("block_size", ("--block-size",)),
    Rule("cpu_offload_gb", ("--cpu-offload-gb",)),
    Rule("kv_offloading_size", ("--kv-offloading-size",)),
    Rule("enable_prefix_caching", ("--enable-prefix-caching",), Kind.EITHER, ("--no-enable-prefix-caching",)),
    Rule("prefix_caching_hash_algo", ("--prefix-caching-hash-algo",)),
    Rule("disable_sliding_window", ("--disable-sliding-window",), Kind.SWITCH),
)
PARALLEL = (
    Rule("tp_size", ("--tensor-parallel-size",), needed=True),
    Rule("pipeline_parallel_size", ("--pipeline-parallel-size",), needed=True),
    Rule("data_parallel_size", ("--data-parallel-size",)),
    Rule("enable_expert_parallel", ("--enable-expert-parallel",), Kind.SWITCH),
    Rule("distributed_executor_backend", ("--distributed-executor-backend",)),
    Rule("disable_custom_all_reduce", ("--disable-custom-all-reduce",), Kind.SWITCH),
    Rule("numa_bind", ("--numa-bind",), Kind.SWITCH),
)
LOADING = (
    Rule("dtype", ("--dtype",), needed=True),
    Rule("quantization", ("--quantization",), needed=True),
    Rule("trust_remote_code", ("--trust-remote-code",), Kind.SWITCH, needed=True),
    Rule("revision", ("--revision",), needed=True),
    Rule("tokenizer", ("--tokenizer",), Kind.PATH, needed=True),
    Rule("tokenizer_revision", ("--tokenizer-revision",), needed=True),
    Rule("tokenizer_mode", ("--tokenizer-mode",), needed=True),
    Rule("hf_config_path", ("--hf-config-path",), Kind.PATH, needed=True),
    Rule("hf_overrides", ("--hf-overrides",), Kind.JSON, needed=True),
    Rule("config_format", ("--config-format",), needed=True),
    Rule("model_impl", ("--model-impl",)),
    Rule("safetensors_load_strategy", ("--safetensors-load-strategy",)),
    Rule("generation_config", ("--generation-config",)),
    Rule("override_generation_config", ("--override-generation-config",), Kind.JSON),
    Rule("pooler_config", ("--pooler-config", "--override-pooler-config"), Kind.JSON, needed=True),
)
COMPUTING = (
    Rule("enforce_eager", ("--enforce-eager",), Kind.SWITCH),
    Rule("attention_backend", ("--attention-backend",)),
    Rule("cuda_graph_sizes", ("--cudagraph-capture-sizes", "--cuda-graph-sizes"), Kind.LIST),
    Rule("max_cudagraph_capture_size", ("--max-cudagraph-capture-size",)),
    Rule("optimization_level", ("--optimization-level",)),
    Rule("performance_mode", ("--performance-mode",)),
    Rule("enable_chunked_prefill", ("--enable-chunked-prefill",), Kind.EITHER, ("--no-enable-chunked-prefill",)),
    Rule("scheduling_policy", ("--scheduling-policy",)),
    Rule("async_scheduling", ("--async-scheduling",), Kind.EITHER, ("--no-async-scheduling",)),
    Rule("long_prefill_token_threshold", ("--long-prefill-token-threshold",)),
    Rule("stream_interval", ("--stream-interval",)),
)
SERVING = (
    Rule("tool_call_parser", ("--tool-call-parser",), needed=True),
    Rule("reasoning_parser", ("--reasoning-parser",), needed=True),
    Rule("chat_template", ("--chat-template",), needed=True),
    Rule("chat_template_content_format", ("--chat-template-content-format",)),
    Rule("chat_template_kwargs", ("--default-chat-template-kwargs",), Kind.JSON),
    Rule("limit_mm_per_prompt", ("--limit-mm-per-prompt",), Kind.JSON),
    Rule("mm_processor_kwargs", ("--mm-processor-kwargs",), Kind.JSON),
    Rule("mm_processor_cache_gb", ("--mm-processor-cache-gb",)),
    Rule("language_model_only", ("--language-model-only",), Kind.SWITCH),
    Rule("max_logprobs", ("--max-logprobs",)),
    Rule("enable_log_requests", ("--enable-log-requests",), Kind.SWITCH),
    Rule("max_log_len", ("--max-log-len",)),
)
LORA = (
    Rule("enable_lora", ("--enable-lora",), Kind.SWITCH, needed=True),
    Rule("lora_modules", ("--lora-modules",), Kind.LIST, needed=True),
    Rule("max_loras", ("--max-loras",)),
    Rule("max_lora_rank", ("--max-lora-rank",), needed=True),
    Rule("max_cpu_loras", ("--max-cpu-loras",)),
    Rule("fully_sharded_loras", ("--fully-sharded-loras",), Kind.SWITCH),
)
SPECULATIVE = (Rule("speculative_method", ("--speculative-config",)),)


def build(request: BuildRequest) -> Command:
    """The command of one replica.

    Raises:
        SpecError: there is no model to serve, it is a GGUF file, or this version cannot do what is asked.
    """
    model = request.model
    options = model.vllm or VllmOptions()
    check_vllm(model.extra_args)
    check_environment(model.extra_env)
    capabilities, warnings = _capabilities(request.program)
    arguments = Arguments("vLLM", capabilities, lambda value: _companion(request, value), warnings=warnings)
    arguments.words.append(_source(request))
    arguments.add("--served-model-name", value=model.served_model_name)
    arguments.add("--host", value=HOST)
    arguments.add("--port", value=PORT)
    values: Mapping[str, object] = dict(options)
    for rules in (MEMORY, PARALLEL, LOADING, COMPUTING):
        arguments.apply(rules, values)
    _add_serving(arguments, request, options)
    _add_lora(arguments, request, options)
    arguments.apply(SPECULATIVE, {"speculative_method": _speculative(request, options)})
    _add_task(arguments, model.task)
    if not arguments.add_if_listed("--shutdown-timeout", value=_shutdown_timeout(model.stop_timeout_s)):
        arguments.warnings.append("This vLLM has no --shutdown-timeout: a stop cuts off requests in flight.")
    _check_free_arguments(model, request.program, arguments)
    return Command(
        argv=(*arguments.words, *model.extra_args),
        api_key_env="VLLM_API_KEY",
        env=ENVIRONMENT | _environment(model, options) | model.extra_env,
        entrypoint=("vllm", "serve"),
        shm_bytes=SHARED_MEMORY_BYTES,
        read_only_root=False,
        hub_cache=True,
        warnings=tuple(arguments.warnings),
    )


def version_of(program: Program) -> str | None:
    """The version as `major.minor`, from what the catalog found or from the image's tag."""
    for text, pattern in ((program.version, r"v?(\d+\.\d+)"), (program.reference, r".*:v?(\d+\.\d+)(?:[.+-][^/]*)?$")):
        found = re.match(pattern, text or "")
        if found is not None:
            return found.group(1)
    return None


def _capabilities(program: Program) -> tuple[Capabilities, list[str]]:
    """What the program lists; without a list, the options of the version that Cortex was checked with."""
    if program.capabilities.flags:
        return program.capabilities, []
    version = version_of(program)
    if version is None or version == VERSION:
        return Capabilities(FLAGS), []
    return Capabilities(FLAGS), [
        f"vLLM {version} is not the version that Cortex was checked with ({VERSION}): options may be spelled otherwise."
    ]


def _source(request: BuildRequest) -> str:
    model = request.model
    if model.local_path is not None:
        if model.local_path.lower().endswith(".gguf"):
            raise SpecError("gguf_needs_llamacpp", "vLLM cannot serve a GGUF file: use engine_type llamacpp.")
        return model_file(request, model.local_path)
    if model.repo_id is not None:
        return model.repo_id
    raise SpecError("model_path_missing", "A vLLM model needs repo_id or local_path.")


def _companion(request: BuildRequest, value: str) -> str:
    """A tokenizer or configuration: beside a local model a folder, beside a downloaded one a repository."""
    if request.model.local_path is not None or value.startswith(("/", ".")):
        return model_file(request, value)
    return value


def _environment(model: ModelDocumentV1, options: VllmOptions) -> dict[str, str]:
    offline = {"HF_HUB_OFFLINE": "1"} if model.local_path is not None else {}
    return offline | ({"VLLM_LOGGING_LEVEL": "DEBUG"} if options.verbose_logging else {})


def _add_serving(arguments: Arguments, request: BuildRequest, options: VllmOptions) -> None:
    arguments.add_if_listed("--enable-prompt-tokens-details")
    if options.tool_call_parser is not None:
        arguments.add("--enable-auto-tool-choice")
    arguments.apply(SERVING, {**dict(options), "chat_template": _chat_template(request, options)})


def _chat_template(request: BuildRequest, options: VllmOptions) -> str | None:
    """One flag takes a file or the text itself; text that holds no Jinja would be read as the name of a file."""
    if options.chat_template_file is not None:
        return model_file(request, options.chat_template_file)
    if options.chat_template is not None and "{" not in options.chat_template:
        raise SpecError(
            "chat_template_invalid", "chat_template is no Jinja text: give the text, or a file as chat_template_file."
        )
    return options.chat_template


def _add_lora(arguments: Arguments, request: BuildRequest, options: VllmOptions) -> None:
    modules = tuple(_lora_module(request, module) for module in options.lora_modules)
    switched_on = options.enable_lora or bool(modules)
    arguments.apply(LORA, {**dict(options), "enable_lora": switched_on, "lora_modules": modules})


def _lora_module(request: BuildRequest, module: LoraModule) -> str:
    if (module.path is None) == (module.repo_id is None):
        raise SpecError("lora_source_invalid", f"LoRA {module.name!r} needs exactly one of path and repo_id.")
    source = module.repo_id if module.path is None else model_file(request, module.path)
    return compact_json({"name": module.name, "path": source})


def _speculative(request: BuildRequest, options: VllmOptions) -> str | None:
    draft = options.draft_repo_id
    if options.draft_model_path is not None:
        draft = model_file(request, options.draft_model_path)
    parts = {
        "method": options.speculative_method,
        "model": draft,
        "num_speculative_tokens": options.draft_n,
        "prompt_lookup_max": options.prompt_lookup_max,
        "prompt_lookup_min": options.prompt_lookup_min,
    }
    given = {name: value for name, value in parts.items() if value is not None}
    return compact_json(given) if given else None


def _add_task(arguments: Arguments, task: Task) -> None:
    match task:
        case Task.GENERATE:
            return
        case Task.EMBED:
            convert = "embed"
        case Task.RERANK:
            convert = "classify"
    if arguments.listed("--runner") is None and arguments.listed("--task") is not None:
        arguments.add("--task", value="score" if convert == "classify" else convert)
        return
    arguments.add("--runner", value="pooling")
    arguments.add("--convert", value=convert)


def _check_free_arguments(model: ModelDocumentV1, program: Program, arguments: Arguments) -> None:
    """The parser also takes `--name.key`, and the beginning of a name for the whole."""
    if not program.capabilities.flags and version_of(program) not in (None, VERSION):
        return
    known = arguments.capabilities.flags

    def accepts(flag: str) -> bool:
        head = flag.split(".", 1)[0]
        return (
            head in known
            or flag[:2] == "-O"
            or (head.startswith("--") and any(name.startswith(head) for name in known))
        )

    check_known("vLLM", model.extra_args, known, accepts)


def _shutdown_timeout(stop_timeout_s: int) -> int:
    return max(1, stop_timeout_s - EXIT_MARGIN_S)


def stop_policy(timeout_s: int) -> StopPolicy:
    """vLLM drains for `--shutdown-timeout` seconds and needs a margin on top before it may be killed."""
    return StopPolicy(deadline_s=float(_shutdown_timeout(timeout_s) + EXIT_MARGIN_S))


def must_ask(program: Program) -> bool:
    """The options of the checked version are known; asking another one imports all of it."""
    return version_of(program) != VERSION


ENGINE = Engine(EngineType.VLLM, "vllm", False, build, stop_policy, True, ("serve", "--help=all"), must_ask)
