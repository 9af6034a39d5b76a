"""How a llama-server says that it cannot start. The most telling lines come first; the last entries are catch-alls."""

from cortex_orchestrator.domain.diagnosis.cause import cause

_COPY = "Copy or download the file again; `cortex gguf verify` tells which part is damaged."
_NEWER = "Use a newer build of llama-server (engine_image), or another conversion of the model."

CAUSES = (
    cause(
        "argument_removed",
        r'argument "(?P<flag>[^"]+)": the argument has been removed',
        "This build no longer has the argument {flag}.",
        "Take it out of extra_args; the engine's line names what replaced it.",
    ),
    cause(
        "unknown_argument",
        r"error: invalid argument: (?P<flag>\S+)",
        "This build does not know the argument {flag}.",
        "Take it out of extra_args, or use a build that has it (engine_image).",
    ),
    cause(
        "too_many_devices",
        r"got (?P<given>\d+) input configs, but system only has (?P<present>\d+) devices",
        "tensor_split has {given} shares, the engine has only {present} devices.",
        "Give one share for each GPU of the replica, or leave tensor_split out.",
    ),
    cause(
        "bad_value",
        r'error while handling argument "(?P<flag>[^"]+)"',
        "The engine refused the value of {flag}.",
        "Correct the option, or the value in extra_args.",
    ),
    cause(
        "part_missing",
        r"failed to load GGUF split from (?P<path>\S+)",
        "A part of the split model cannot be read: {path}.",
        "Copy every part of the set into the same folder; `cortex gguf inspect` lists what is missing.",
    ),
    cause(
        "wrong_part",
        r"illegal split file idx: \d+ \(file: (?P<path>[^)]+)\)",
        "local_path names a later part of a split model: {path}.",
        "Give the first part (…-00001-of-…); the engine finds the others itself.",
    ),
    cause(
        "part_renamed",
        r"invalid split file name: (?P<path>\S+)",
        "A part of a split model has lost its name: {path}.",
        "Give the parts back their names (…-00001-of-0000N.gguf).",
    ),
    cause(
        "lfs_pointer",
        r"invalid magic characters: 'vers'",
        "The file is a Git LFS pointer, not the model itself.",
        "Fetch the real file (`git lfs pull`), or download it from the repository's page.",
    ),
    cause(
        "not_a_gguf",
        r"invalid magic characters: (?P<magic>'[^']*')",
        "The file is no GGUF file: it begins with {magic}.",
        "Give a GGUF file; a web page saved under its name is a common mistake.",
    ),
    cause(
        "wrong_byte_order",
        r"mismatch between the host and model endianness",
        "The file was made for machines of the other byte order.",
        "Take a little-endian GGUF of the model.",
    ),
    cause(
        "gguf_version",
        r"(?P<version>GGUFv1 is no longer supported|this GGUF file is version \d+ but this software only supports)",
        "The engine cannot read this version of the GGUF format.",
        "Convert the model anew, or use a build of llama-server that matches it.",
    ),
    cause(
        "file_empty",
        r"gguf_init_from\w*: failed to read magic",
        "The model file is empty or too short to be one.",
        _COPY,
    ),
    cause(
        "file_corrupt",
        r"corrupted or incomplete|not within the file bounds|failed to read (key-value pairs|tensor info|tensor data)"
        r"|gguf_init_from\w*: .*(duplicate|bad offset|invalid (tensor|number|string))",
        "The model file is damaged or was not copied whole.",
        _COPY,
    ),
    cause(
        "invalid_tensor_data",
        r"found tensors with invalid data",
        "check_tensors found numbers in the file that are none.",
        _COPY,
    ),
    cause(
        "unknown_architecture",
        r"unknown model architecture: (?P<name>'[^']*')",
        "This build cannot run the architecture {name}.",
        _NEWER,
    ),
    cause(
        "unknown_tokenizer",
        r"unknown (pre-tokenizer type|tokenizer): (?P<name>'[^']*')",
        "This build does not know the model's tokenizer {name}.",
        _NEWER,
    ),
    cause(
        "metadata_missing",
        r"key not found in model: (?P<key>\S+)",
        "The file lacks the entry {key}, which this architecture needs.",
        "Convert the model anew with the converter that belongs to the build, or set it with override_kv.",
    ),
    cause(
        "tensor_missing",
        r"(tensor (?P<name>'[^']*') not found|missing tensor (?P<other>'[^']*'))",
        "The file lacks a tensor that this architecture needs.",
        _NEWER,
    ),
    cause(
        "tensor_shape",
        r"tensor '[^']*' has wrong shape; expected",
        "A tensor of the file has another shape than the architecture needs.",
        _NEWER,
    ),
    cause(
        "tensor_type",
        r"(has invalid ggml type|invalid ggml type|unsupported tensor type|type .* has been removed)",
        "The file uses a quantization that this build does not know.",
        _NEWER,
    ),
    cause(
        "needs_flash_attention",
        r"quantized V cache requires flash_attn",
        "A quantized V cache needs flash attention.",
        "Turn flash_attention on, or leave cache_type_v out.",
    ),
    cause(
        "bad_template",
        r"the supplied chat template is not supported|failed to initialize chat template",
        "The chat template cannot be used.",
        "Correct chat_template, or leave it out: the model brings its own. Jinja templates need jinja_enabled.",
    ),
    cause(
        "bad_grammar",
        r"failed to parse grammar|error parsing grammar",
        "The grammar of grammar_file is wrong.",
        "Correct the file (GBNF); the engine's line names the place.",
    ),
    cause(
        "lora_mismatch",
        r"failed to apply lora adapter: (model arch and LoRA arch mismatch|tensor .* has incorrect shape"
        r"|.*maybe wrong base model)",
        "A LoRA adapter belongs to another model.",
        "Use an adapter that was trained on this model, converted to GGUF.",
    ),
    cause(
        "lora_unusable",
        r"failed to (load|apply) lora adapter",
        "A LoRA adapter cannot be read.",
        "Check the path and that it is an adapter converted to GGUF.",
    ),
    cause(
        "draft_mismatch",
        r"draft (model )?.*(not compatible|vocab.* (mismatch|match))",
        "The draft model does not fit the model: their vocabularies differ.",
        "Take a draft model of the same family.",
    ),
    cause(
        "draft_unusable",
        r"failed to load draft model",
        "The draft model cannot be loaded.",
        "Check draft_model_path and that the file is whole, or leave it out.",
    ),
    cause(
        "projector_mismatch",
        r"mismatch between text model .* and mmproj",
        "The projector belongs to another model.",
        "Take the mmproj file that was published with this model.",
    ),
    cause(
        "projector_unusable",
        r"failed to load (CLIP|multimodal) model|unable to load (clip|mmproj)",
        "The projector cannot be loaded.",
        "Check mmproj_path, and that it is the projector (mmproj) that belongs to this model.",
    ),
)

CATCH_ALL = (
    cause(
        "file_missing",
        r"failed to open GGUF|failed to open file|no such file or directory",
        "A file of the model is not there.",
        "Check local_path and that every part of the model is in the models folder.",
    ),
    cause(
        "context_failed",
        r"failed to create_?\s?context",
        "The engine loaded the model but could not set up its context.",
        "Lower context_size or parallel_slots; check the cache types.",
    ),
    cause(
        "load_failed",
        r"error loading model|failed to load model|exiting due to model loading error",
        "The engine could not load the model.",
        "Check that the file is whole and that this build supports its architecture.",
    ),
)
