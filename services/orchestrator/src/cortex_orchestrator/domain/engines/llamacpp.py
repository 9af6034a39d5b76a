"""llama.cpp: options of a model to the command line of a llama-server, for whatever build is there."""

from collections.abc import Mapping

from cortex_contracts.engines import LlamaCppOptions, LoraAdapter
from cortex_contracts.enums import EngineType, Task
from cortex_orchestrator.domain.engines.base import BuildRequest, Engine, model_file
from cortex_orchestrator.domain.engines.guard import check_environment, check_llamacpp
from cortex_orchestrator.domain.engines.rules import Arguments, Kind, Rule, check_known, flag_of
from cortex_orchestrator.domain.spec import HOST, PORT, Command, SpecError, StopPolicy

DEFAULT_CACHE_RAM_MIB = 1024
"""The engine's own default is 8 GiB of host memory for each replica; the administrator may raise ours."""

LOG_VERBOSITY = 4
"""The lowest level that prints what memory the engine really took (about 3 KB of log a request, no prompt text)."""

CONTEXT = (
    Rule("context_size", ("--ctx-size", "-c"), needed=True),
    Rule("batch_size", ("--batch-size", "-b")),
    Rule("ubatch_size", ("--ubatch-size", "-ub")),
    Rule("parallel_slots", ("--parallel", "-np")),
    Rule("kv_unified", ("--kv-unified", "-kvu"), Kind.EITHER, ("--no-kv-unified", "-no-kvu")),
    Rule("kv_unified_per_slot", ("--kv-unified-per-slot",)),
    Rule("cont_batching", ("--cont-batching", "-cb"), Kind.EITHER, ("--no-cont-batching", "-nocb")),
    Rule("flash_attention", ("--flash-attn", "-fa"), Kind.ON_OFF),
    Rule("cache_type_k", ("--cache-type-k", "-ctk")),
    Rule("cache_type_v", ("--cache-type-v", "-ctv")),
    Rule("swa_full", ("--swa-full",), Kind.SWITCH),
    Rule("ctx_checkpoints", ("--ctx-checkpoints", "--swa-checkpoints")),
    Rule("context_shift", ("--context-shift",), Kind.EITHER, ("--no-context-shift",)),
    Rule("cache_prompt", ("--cache-prompt",), Kind.EITHER, ("--no-cache-prompt",)),
    Rule("cache_reuse", ("--cache-reuse",)),
    Rule("slot_prompt_similarity", ("--slot-prompt-similarity", "-sps")),
    Rule("server_timeout_s", ("--timeout", "-to")),
    Rule("rope_scaling", ("--rope-scaling",), needed=True),
    Rule("rope_scale", ("--rope-scale",), needed=True),
    Rule("rope_freq_base", ("--rope-freq-base",), needed=True),
    Rule("rope_freq_scale", ("--rope-freq-scale",), needed=True),
    Rule("yarn_orig_ctx", ("--yarn-orig-ctx",), needed=True),
    Rule("yarn_ext_factor", ("--yarn-ext-factor",), needed=True),
    Rule("yarn_attn_factor", ("--yarn-attn-factor",), needed=True),
    Rule("yarn_beta_slow", ("--yarn-beta-slow",), needed=True),
    Rule("yarn_beta_fast", ("--yarn-beta-fast",), needed=True),
)
PLACEMENT = (
    Rule("ngl", ("--n-gpu-layers", "--gpu-layers", "-ngl")),
    Rule("split_mode", ("--split-mode", "-sm")),
    Rule("tensor_split", ("--tensor-split", "-ts")),
    Rule("main_gpu", ("--main-gpu", "-mg")),
    Rule("kv_offload", ("--kv-offload", "-kvo"), Kind.EITHER, ("--no-kv-offload", "-nkvo")),
    Rule("op_offload", ("--op-offload",), Kind.EITHER, ("--no-op-offload",)),
    Rule("cpu_moe", ("--cpu-moe", "-cmoe"), Kind.SWITCH),
    Rule("n_cpu_moe", ("--n-cpu-moe", "-ncmoe")),
    Rule("n_cpu_ffn", ("--n-cpu-ffn", "-ncffn")),
    Rule("override_tensor", ("--override-tensor", "-ot")),
    Rule("fit", ("--fit", "-fit"), Kind.ON_OFF),
    Rule("fit_target_mib", ("--fit-target", "-fitt")),
    Rule("threads", ("--threads", "-t")),
    Rule("threads_batch", ("--threads-batch", "-tb")),
    Rule("threads_http", ("--threads-http",)),
    Rule("numa_policy", ("--numa",)),
)
LOADING = (
    Rule("lazy_mode", ("--lazy-mode", "-lzm")),
    Rule("repack", ("--repack",), Kind.EITHER, ("--no-repack", "-nr")),
    Rule("override_kv", ("--override-kv",), needed=True),
    Rule("check_tensors", ("--check-tensors",), Kind.SWITCH),
    Rule("skip_warmup", ("--no-warmup",), Kind.SWITCH),
)
CHAT = (
    Rule("jinja_enabled", ("--jinja",), Kind.EITHER, ("--no-jinja",)),
    Rule("chat_template", ("--chat-template",), needed=True),
    Rule("chat_template_file", ("--chat-template-file",), Kind.PATH, needed=True),
    Rule("chat_template_kwargs", ("--chat-template-kwargs",), Kind.JSON),
    Rule("reasoning", ("--reasoning", "-rea")),
    Rule("reasoning_format", ("--reasoning-format",)),
    Rule("reasoning_effort", ("--reasoning-effort",)),
    Rule("reasoning_budget", ("--reasoning-budget",)),
    Rule("grammar_file", ("--grammar-file",), Kind.PATH, needed=True),
    Rule("mmproj_path", ("--mmproj", "-mm"), Kind.PATH, needed=True),
    Rule("mmproj_offload", ("--mmproj-offload",), Kind.EITHER, ("--no-mmproj-offload",)),
    Rule("image_min_tokens", ("--image-min-tokens",)),
    Rule("image_max_tokens", ("--image-max-tokens",)),
)
DRAFT = (
    Rule("draft_model_path", ("--spec-draft-model", "--model-draft", "-md"), Kind.PATH),
    Rule("spec_type", ("--spec-type",)),
    Rule("draft_n", ("--spec-draft-n-max", "--draft-max")),
    Rule("draft_n_min", ("--spec-draft-n-min", "--draft-min")),
    Rule("draft_p_min", ("--spec-draft-p-min", "--draft-p-min")),
    Rule("draft_ngl", ("--spec-draft-ngl", "--n-gpu-layers-draft", "-ngld")),
    Rule("draft_cache_type_k", ("--spec-draft-type-k", "--cache-type-k-draft", "-ctkd")),
    Rule("draft_cache_type_v", ("--spec-draft-type-v", "--cache-type-v-draft", "-ctvd")),
)
LORA = (Rule("lora_init_without_apply", ("--lora-init-without-apply",), Kind.SWITCH),)
TASK = (
    Rule("pooling", ("--pooling",), needed=True),
    Rule("embd_normalize", ("--embd-normalize",)),
)


def build(request: BuildRequest) -> Command:
    """The command of one replica.

    Raises:
        SpecError: the model has no file, or asks for what this build cannot do.
    """
    model = request.model
    options = model.llamacpp or LlamaCppOptions()
    if model.local_path is None:
        raise SpecError("model_path_missing", "A llama.cpp model needs local_path, a GGUF file in the models folder.")
    check_llamacpp(model.extra_args)
    check_environment(model.extra_env)
    arguments = Arguments("llama-server", request.program.capabilities, lambda path: model_file(request, path))
    arguments.add("--model", "-m", value=model_file(request, model.local_path))
    arguments.add("--alias", "-a", value=model.served_model_name)
    arguments.add("--host", value=HOST)
    arguments.add("--port", value=PORT)
    _add_service(arguments, options)
    values: Mapping[str, object] = dict(options)
    arguments.apply(CONTEXT, values)
    _add_cache_ram(arguments, options)
    arguments.apply(PLACEMENT, values)
    _add_load_mode(arguments, options)
    arguments.apply(LOADING, values)
    arguments.apply(CHAT, values)
    arguments.apply(DRAFT, {**values, "spec_type": _spec_type(arguments, options)})
    _add_lora(arguments, options.lora_adapters, request)
    arguments.apply(LORA, values)
    _add_task(arguments, model.task, values)
    _check_free_arguments(request)
    return Command(
        argv=(*arguments.words, *model.extra_args),
        api_key_env="LLAMA_API_KEY",
        env=dict(model.extra_env),
        lock_memory=options.mlock or "mlock" in (options.load_mode or ""),
        warnings=tuple(arguments.warnings),
    )


def _add_service(arguments: Arguments, options: LlamaCppOptions) -> None:
    if not arguments.add_if_listed("--metrics"):
        arguments.warnings.append("This llama-server has no --metrics: its load cannot be read.")
    arguments.add_if_listed("--no-ui", "--no-webui")
    arguments.add_if_listed("--offline")
    verbosity = LOG_VERBOSITY + 1 if options.verbose_logging else LOG_VERBOSITY
    arguments.add_if_listed("--log-verbosity", "--verbosity", "-lv", value=verbosity)


def _add_cache_ram(arguments: Arguments, options: LlamaCppOptions) -> None:
    cache_ram = DEFAULT_CACHE_RAM_MIB if options.cache_ram_mib is None else options.cache_ram_mib
    if not arguments.add_if_listed("--cache-ram", "-cram", value=cache_ram) and options.cache_ram_mib:
        arguments.leave_out("cache_ram_mib", "--cache-ram")


def _add_load_mode(arguments: Arguments, options: LlamaCppOptions) -> None:
    """`--load-mode` where the build has it; older builds know only the options it replaced."""
    mode = options.load_mode or _load_mode(options)
    if mode is None or arguments.add_if_listed("--load-mode", "-lm", value=mode):
        return
    for name in _old_load_options(mode):
        if not arguments.add_if_listed(name):
            arguments.leave_out("load_mode" if options.load_mode else name[2:].replace("-", "_"), name)


def _load_mode(options: LlamaCppOptions) -> str | None:
    if options.mlock:
        return "mlock" if options.no_mmap else "mmap+mlock"
    return "none" if options.no_mmap else None


def _old_load_options(mode: str) -> tuple[str, ...]:
    table = {
        "none": ("--no-mmap",),
        "mlock": ("--mlock", "--no-mmap"),
        "mmap+mlock": ("--mlock",),
        "dio": ("--direct-io",),
    }
    return table.get(mode, ())


def _spec_type(arguments: Arguments, options: LlamaCppOptions) -> str | None:
    """Newer builds leave a draft model idle unless they are told its kind; older ones have no such option."""
    if options.spec_type is not None or options.draft_model_path is None:
        return options.spec_type
    return "draft-simple" if arguments.listed("--spec-type") else None


def _add_lora(arguments: Arguments, adapters: tuple[LoraAdapter, ...], request: BuildRequest) -> None:
    if not adapters:
        return
    scaled: list[str] = []
    for adapter in adapters:
        if ":" in adapter.path or "," in adapter.path:
            raise SpecError("lora_path_invalid", f"llama-server cannot take ':' or ',' in {adapter.path!r}: rename it.")
        scaled.append(f"{model_file(request, adapter.path)}:{adapter.scale:g}")
    arguments.add("--lora-scaled", value=",".join(scaled))


def _add_task(arguments: Arguments, task: Task, values: Mapping[str, object]) -> None:
    arguments.apply(TASK, values)
    if task is Task.EMBED:
        arguments.add("--embeddings", "--embedding")
    elif task is Task.RERANK:
        arguments.add("--rerank", "--reranking")


def _check_free_arguments(request: BuildRequest) -> None:
    for word in request.model.extra_args:
        if flag_of(word) is not None and "=" in word.split(" ", 1)[0]:
            raise SpecError("engine_option_unsupported", f"{word}: a llama-server takes a value as a word of its own.")
    known = request.program.capabilities.flags
    if known:
        check_known("llama-server", request.model.extra_args, known, known.__contains__)


def stop_policy(timeout_s: int) -> StopPolicy:
    """An engine with requests in flight sits out SIGTERM until their clients leave; a second one ends it at once."""
    return StopPolicy(deadline_s=float(timeout_s), second_term_s=timeout_s / 2)


ENGINE = Engine(EngineType.LLAMACPP, "llama-server", True, build, stop_policy)
