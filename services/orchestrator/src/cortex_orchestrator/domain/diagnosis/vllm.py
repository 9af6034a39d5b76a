"""How vLLM says that it cannot start. The root cause is often far above the last line; catch-alls come last."""

from cortex_orchestrator.domain.diagnosis.cause import cause

_TOKEN = "Set hf_token to a token of an account that may read the repository."
_MEMORY = "Raise gpu_memory_utilization, lower max_model_len or max_num_seqs, or use more GPUs (tp_size)."

CAUSES = (
    cause(
        "unknown_argument",
        r"unrecognized arguments: (?P<flags>.*)",
        "This version does not know the argument {flags}.",
        "Take it out of extra_args, or use a version that has it (engine_image).",
    ),
    cause(
        "bad_value",
        r"error: argument (?P<flag>[^:]+): ",
        "vLLM refused the value of {flag}.",
        "Correct the option, or the value in extra_args.",
    ),
    cause(
        "kv_cache_too_small",
        r"max seq len \((?P<asked>\d+)\).*estimated maximum model length is (?P<fits>\d+)",
        "The KV cache does not hold one request of max_model_len {asked}; {fits} would fit.",
        "Set max_model_len to {fits} or less, or raise gpu_memory_utilization or tp_size.",
    ),
    cause(
        "kv_cache_too_small",
        r"max seq len \((?P<asked>\d+)\).*larger than the available KV cache memory",
        "The KV cache does not hold one request of max_model_len {asked}.",
        _MEMORY,
    ),
    cause(
        "no_kv_memory",
        r"No available memory for the cache blocks",
        "After the weights there is no memory left for the KV cache.",
        _MEMORY,
    ),
    cause(
        "memory_taken",
        r"(is less than desired \w+ memory utilization|Free memory on device .* is less than|"
        r"is less than requested memory for kv)",
        "Less memory is free than this replica was promised: something else uses the device.",
        "Stop what uses it, lower gpu_memory_utilization or kv_cache_memory_bytes, or choose other GPUs.",
    ),
    cause(
        "context_too_long",
        r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len \(\D*(?P<fits>\d+)",
        "max_model_len {asked} is more than the model was made for ({fits} tokens).",
        "Set max_model_len to {fits} or less, or extend the context with hf_overrides (rope scaling).",
    ),
    cause(
        "gguf_needs_llamacpp",
        r"\.gguf' is not a valid JSON file",
        "vLLM cannot serve a GGUF file.",
        "Choose engine_type llamacpp for it.",
    ),
    cause(
        "config_damaged",
        r"config file at '(?P<path>[^']+)' is not a valid JSON file",
        "The model's configuration is damaged: {path}.",
        "Copy or download the model's folder again.",
    ),
    cause(
        "remote_code_needed",
        r"contains custom code which must be executed|trust_remote_code=True",
        "The model brings Python code of its own, which must be allowed to run.",
        "Read that code, then set trust_remote_code; or take a model that needs none.",
    ),
    cause(
        "unknown_architecture",
        r"(Model architectures \[(?P<names>[^\]]*)\] are not supported|does not recognize this architecture"
        r"|Model architectures .* failed to be inspected)",
        "This version cannot run the model's architecture.",
        "Use a newer vLLM (engine_image), or a model whose architecture it supports.",
    ),
    cause(
        "config_missing",
        r"Invalid repository ID or local directory specified|does not appear to have a file named config\.json",
        "The model's folder holds no config.json.",
        "Give a folder with a whole model in Hugging Face format.",
    ),
    cause(
        "tokenizer_missing",
        r"Couldn't instantiate the backend tokenizer|Can't load tokenizer|Unable to load vocabulary from file",
        "The model has no tokenizer that vLLM can use.",
        "Add the tokenizer's files to the folder, or name another with tokenizer.",
    ),
    cause(
        "weights_missing",
        r"Cannot find any model weights",
        "The model's folder holds no weights.",
        "Copy the .safetensors files of the model into the folder.",
    ),
    cause(
        "weights_damaged",
        r"SafetensorError|Error while deserializing header",
        "A file of weights is damaged or was not copied whole.",
        "Copy or download the .safetensors files again.",
    ),
    cause(
        "weights_mismatch",
        r"size of tensor a \(\d+\) must match the size of tensor b|size mismatch for|Following weights were not"
        r"|shape mismatch.*weight",
        "The weights do not fit the model's configuration.",
        "Take config.json and the weights from the same model; check quantization and hf_overrides.",
    ),
    cause(
        "repository_gated",
        r"access a gated repo\.|Cannot access gated repo|GatedRepoError|Access to model \S+ is restricted",
        "The repository is gated: its owner wants its terms accepted first.",
        "Accept the terms on the model's page, then " + _TOKEN[0].lower() + _TOKEN[1:],
    ),
    cause(
        "revision_not_found",
        r"(?P<name>\S+) is not a valid git identifier|RevisionNotFoundError",
        "The repository has no such revision.",
        "Correct revision (a branch, tag or commit).",
    ),
    cause(
        "token_refused",
        r"401 Client Error|'401 Unauthorized'|Invalid user token|Invalid credentials in Authorization header|Invalid username or password",
        "The Hugging Face hub refused the token.",
        _TOKEN,
    ),
    cause(
        "repository_not_found",
        r"is not a valid model identifier listed on|RepositoryNotFoundError",
        "There is no such repository, or it is private.",
        "Correct repo_id; for a private repository: " + _TOKEN,
    ),
    cause(
        "folder_missing",
        r"Repo id must be in the form .*: '(?P<path>[^']+)'|HFValidationError",
        "The model's folder is not there.",
        "Check local_path and that the models folder holds it.",
    ),
    cause(
        "hub_offline",
        r"outgoing traffic has been disabled|OfflineModeIsEnabled|offline mode is enabled",
        "The model is not in the cache, and downloads are switched off.",
        "Download it into the models folder and give local_path, or allow downloads.",
    ),
    cause(
        "hub_unreachable",
        r"We couldn't connect to '[^']*'|Failed to resolve '[^']*'|Max retries exceeded with url|"
        r"An error happened while trying to locate the file on the Hub",
        "The Hugging Face hub cannot be reached.",
        "Check the network, proxy and HF_ENDPOINT of the node, or use local_path.",
    ),
    cause(
        "unknown_quantization",
        r"Unknown quantization method: (?P<name>[\w-]+)",
        "This version does not know the quantization {name}.",
        "Take another quantization of the model, or a version that has it (engine_image).",
    ),
    cause(
        "quantization_unsupported_gpu",
        r"(quantization method .* is not supported for the current GPU|is not supported by quantization method .* on"
        r"|quantization is currently not supported in)",
        "This hardware cannot compute the model's quantization.",
        "Take another quantization of the model, or a newer GPU.",
    ),
    cause(
        "quantization_mismatch",
        r"Cannot find the config file for (?P<name>\w+)|does not match the quantization method specified",
        "The weights are not quantized the way that quantization says.",
        "Leave quantization out: vLLM reads it from the model.",
    ),
    cause(
        "dtype_unsupported",
        r"torch\.(?P<name>\w+) is not supported for quantization|Bfloat16 is only supported on GPUs",
        "The dtype cannot be used with this model or GPU.",
        "Set dtype to auto, or to one that the engine's line names.",
    ),
    cause(
        "not_divisible",
        r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<size>\d+)\)",
        "The model's {heads} attention heads cannot be shared by {size} GPUs.",
        "Choose a tp_size that divides {heads}.",
    ),
    cause(
        "not_divisible",
        r"(\S+ is not divisible by \S+|must be divisible by (the )?(tensor|pipeline) parallel)",
        "The model cannot be shared evenly by so many GPUs.",
        "Choose another tp_size or pipeline_parallel_size.",
    ),
    cause(
        "too_few_gpus",
        r"World size \(?(?P<asked>\d+)\)? is larger than the number of available GPUs|"
        r"tensor parallel size .* (greater|larger) than the number of|required GPUs exceed",
        "The replica has fewer GPUs than tp_size x pipeline_parallel_size asks for.",
        "Lower tp_size, or give the model more GPUs (placement).",
    ),
    cause(
        "lora_rank",
        r"LoRA rank (?P<rank>\d+) is greater than max_lora_rank (?P<most>\d+)",
        "A LoRA adapter has rank {rank}, more than max_lora_rank {most}.",
        "Set max_lora_rank to {rank} or more.",
    ),
    cause(
        "lora_missing",
        r"No adapter found for (?P<path>(?!<)\S+)|LoRAAdapterNotFoundError",
        "A LoRA adapter is not there.",
        "Check lora_modules: the folder must hold adapter_config.json.",
    ),
    cause(
        "lora_unsupported",
        r"does not support LoRA|LoRA is not supported",
        "This model cannot take LoRA adapters.",
        "Leave lora_modules out.",
    ),
    cause(
        "unknown_parser",
        r"invalid (?P<kind>tool call) parser: (?P<name>[\w-]+)|Reasoning parser (?P<other>'[^']*') not found",
        "This version has no such parser.",
        "Choose one of those that the engine's line lists (tool_call_parser, reasoning_parser).",
    ),
    cause(
        "bad_template",
        r"supplied chat template (string )?\(?(?P<path>\S+?)\)? (appears path-like|path doesn't exist)"
        r"|jinja2\.exceptions\.TemplateSyntaxError",
        "The chat template is not there or is wrong.",
        "Check chat_template and chat_template_file.",
    ),
    cause(
        "wrong_task",
        r"model does not support `--(runner|convert) \w+`|do not support `--runner \w+`",
        "The model cannot do the task.",
        "Choose another task, or a model made for it.",
    ),
    cause(
        "unknown_backend",
        r"(Unknown|Invalid) attention backend|backend .* is not valid for this configuration",
        "The attention backend is not known here or cannot run this model.",
        "Leave attention_backend out, or choose one of those that the engine's line lists.",
    ),
    cause(
        "package_missing",
        r"No module named '?(?P<name>[\w.]+)'?|Please install (?P<other>\S+)",
        "The engine's installation lacks a Python package that this model or option needs.",
        "Use an image that has it, or leave the option out.",
    ),
)

CATCH_ALL = (
    cause(
        "engine_start_timeout",
        r"Timed out waiting for engine|did not (start|become ready) within",
        "The parts of vLLM did not find each other in time.",
        "Raise VLLM_ENGINE_READY_TIMEOUT_S in extra_env; loading from a slow disk takes long.",
    ),
    cause(
        "engine_died",
        r"EngineDeadError|EngineCore encountered an issue|Engine core proc \S+ died",
        "A part of vLLM ended while it ran.",
        "Find the first error in the log; the engine is started again.",
    ),
    cause(
        "load_failed",
        r"Engine core initialization failed|validation error for \w+Config",
        "vLLM could not load the model.",
        "Find the first error in the log.",
    ),
)
