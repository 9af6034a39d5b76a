"""llama.cpp: options of a model to the command line of a llama-server, for whatever build is there."""

from dataclasses import dataclass, field

from cortex_contracts.engines import LlamaCppOptions, LoraAdapter
from cortex_contracts.enums import EngineType, Task
from cortex_orchestrator.domain.engines.base import BuildRequest, Engine, model_file
from cortex_orchestrator.domain.spec import HOST, PORT, Capabilities, Command, SpecError, StopPolicy

DEFAULT_CACHE_RAM_MIB = 1024
"""The engine's own default is 8 GiB of host memory for each replica; the administrator may raise ours."""

LOG_VERBOSITY = 4
"""The lowest level that prints what memory the engine really took (about 3 KB of log a request, no prompt text)."""


@dataclass(slots=True)
class _Arguments:
    """Collects options, each under a name that the build lists."""

    capabilities: Capabilities
    words: list[str] = field(default_factory=list[str])

    def has(self, *names: str) -> bool:
        """Whether the build lists one of the names; every build nobody asked is assumed to be a current one."""
        return not self.capabilities.flags or any(name in self.capabilities.flags for name in names)

    def add(self, *names: str, value: object = None) -> None:
        """Add an option that the model needs; `names` are tried in order.

        Raises:
            SpecError: the build lists none of them.
        """
        flags = self.capabilities.flags
        name = next((name for name in names if not flags or name in flags), None)
        if name is None:
            raise SpecError(
                "engine_option_unsupported",
                f"This llama-server does not know {names[0]}: use a newer build or leave the option out.",
            )
        self.words.append(name)
        if value is not None:
            self.words.append(str(value))

    def add_set(self, *names: str, value: object) -> None:
        """Add an option with a value, unless the value is None. 0 is a value."""
        if value is not None:
            self.add(*names, value=value)

    def add_if_listed(self, *names: str, value: object = None) -> None:
        """Add an option that is only wise."""
        if self.has(*names):
            self.add(*names, value=value)


def build(request: BuildRequest) -> Command:
    """The command of one replica.

    Raises:
        SpecError: the model has no file, or asks for what this build cannot do.
    """
    model = request.model
    options = model.llamacpp or LlamaCppOptions()
    if model.local_path is None:
        raise SpecError("model_path_missing", "A llama.cpp model needs local_path, a GGUF file in the models folder.")
    arguments = _Arguments(request.program.capabilities)
    arguments.add("--model", "-m", value=model_file(request, model.local_path))
    arguments.add("--alias", "-a", value=model.served_model_name)
    arguments.add("--host", value=HOST)
    arguments.add("--port", value=PORT)
    _add_service(arguments, options)
    _add_context(arguments, options)
    _add_placement(arguments, options)
    _add_loading(arguments, options)
    _add_template(arguments, options, request)
    _add_draft(arguments, options, request)
    _add_lora(arguments, options.lora_adapters, request)
    _add_task(arguments, model.task, options)
    return Command(
        argv=(*arguments.words, *model.extra_args),
        api_key_env="LLAMA_API_KEY",
        env=dict(model.extra_env),
        lock_memory=options.mlock,
    )


def _add_service(arguments: _Arguments, options: LlamaCppOptions) -> None:
    arguments.add_if_listed("--metrics")
    arguments.add_if_listed("--no-ui", "--no-webui")
    arguments.add_if_listed("--offline")
    verbosity = LOG_VERBOSITY + 1 if options.verbose_logging else LOG_VERBOSITY
    arguments.add_if_listed("--log-verbosity", "--verbosity", "-lv", value=verbosity)


def _add_context(arguments: _Arguments, options: LlamaCppOptions) -> None:
    arguments.add("--ctx-size", "-c", value=options.context_size)
    arguments.add("--batch-size", "-b", value=options.batch_size)
    arguments.add_set("--ubatch-size", "-ub", value=options.ubatch_size)
    arguments.add_set("--parallel", "-np", value=options.parallel_slots)
    if options.kv_unified is not None:
        arguments.add(*(("--kv-unified", "-kvu") if options.kv_unified else ("--no-kv-unified", "-no-kvu")))
    arguments.add("--flash-attn", "-fa", value="on" if options.flash_attention else "off")
    arguments.add_set("--cache-type-k", "-ctk", value=options.cache_type_k)
    arguments.add_set("--cache-type-v", "-ctv", value=options.cache_type_v)
    cache_ram = DEFAULT_CACHE_RAM_MIB if options.cache_ram_mib is None else options.cache_ram_mib
    arguments.add_if_listed("--cache-ram", "-cram", value=cache_ram)
    arguments.add_set("--rope-freq-base", value=options.rope_freq_base)
    arguments.add_set("--rope-freq-scale", value=options.rope_freq_scale)


def _add_placement(arguments: _Arguments, options: LlamaCppOptions) -> None:
    arguments.add_set("--n-gpu-layers", "--gpu-layers", "-ngl", value=options.ngl)
    arguments.add_set("--split-mode", "-sm", value=options.split_mode)
    arguments.add_set("--tensor-split", "-ts", value=options.tensor_split)
    arguments.add_set("--threads", "-t", value=options.threads)
    arguments.add_set("--numa", value=options.numa_policy)


def _add_loading(arguments: _Arguments, options: LlamaCppOptions) -> None:
    """`--load-mode` where the build has it; older builds know only the options it replaced."""
    if options.mlock or options.no_mmap:
        if arguments.has("--load-mode", "-lm"):
            arguments.add("--load-mode", "-lm", value=_load_mode(options))
        else:
            if options.mlock:
                arguments.add("--mlock")
            if options.no_mmap:
                arguments.add("--no-mmap")
    if options.check_tensors:
        arguments.add("--check-tensors")
    if options.skip_warmup:
        arguments.add("--no-warmup")


def _load_mode(options: LlamaCppOptions) -> str:
    if options.mlock:
        return "mlock" if options.no_mmap else "mmap+mlock"
    return "none"


def _add_template(arguments: _Arguments, options: LlamaCppOptions, request: BuildRequest) -> None:
    if options.jinja_enabled is not None:
        arguments.add("--jinja" if options.jinja_enabled else "--no-jinja")
    arguments.add_set("--chat-template", value=options.chat_template)
    if options.chat_template_file is not None:
        arguments.add("--chat-template-file", value=model_file(request, options.chat_template_file))
    if options.mmproj_path is not None:
        arguments.add("--mmproj", "-mm", value=model_file(request, options.mmproj_path))


def _add_draft(arguments: _Arguments, options: LlamaCppOptions, request: BuildRequest) -> None:
    if options.draft_model_path is None:
        return
    path = model_file(request, options.draft_model_path)
    arguments.add("--spec-draft-model", "--model-draft", "-md", value=path)
    arguments.add_if_listed("--spec-type", value="draft-simple")
    arguments.add_set("--spec-draft-n-max", "--draft-max", value=options.draft_n)
    arguments.add_set("--spec-draft-p-min", "--draft-p-min", value=options.draft_p_min)


def _add_lora(arguments: _Arguments, adapters: tuple[LoraAdapter, ...], request: BuildRequest) -> None:
    if not adapters:
        return
    scaled: list[str] = []
    for adapter in adapters:
        if ":" in adapter.path or "," in adapter.path:
            raise SpecError("lora_path_invalid", f"llama-server cannot take ':' or ',' in {adapter.path!r}: rename it.")
        scaled.append(f"{model_file(request, adapter.path)}:{adapter.scale:g}")
    arguments.add("--lora-scaled", value=",".join(scaled))


def _add_task(arguments: _Arguments, task: Task, options: LlamaCppOptions) -> None:
    arguments.add_set("--pooling", value=options.pooling)
    if task is Task.EMBED:
        arguments.add("--embeddings", "--embedding")
    elif task is Task.RERANK:
        arguments.add("--rerank", "--reranking")


def stop_policy(timeout_s: int) -> StopPolicy:
    """An engine with requests in flight sits out SIGTERM until their clients leave; a second one ends it at once."""
    return StopPolicy(deadline_s=float(timeout_s), second_term_s=timeout_s / 2)


ENGINE = Engine(EngineType.LLAMACPP, "llama-server", True, build, stop_policy)
