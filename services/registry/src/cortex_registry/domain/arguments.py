"""Free engine arguments and environment variables: everything but what Cortex itself decides.

Refused are the addresses and names that routing depends on, keys, downloads, anything that lets the engine run
programs or read and write files that the model does not need, and what would blind the health checks.
"""

import re
from collections.abc import Mapping, Sequence

from cortex_contracts.enums import EngineType
from cortex_kit.errors import DomainError

_LLAMACPP_WORDS = (
    "--host --port --reuse-port -a --alias --tags --api-key --api-key-file --api-prefix --path --media-path "
    "-m --model -mu --model-url -dr --docker-repo -hf -hfr --hf-repo -hff --hf-file -hft --hf-token -hfv -hfrv "
    "--hf-repo-v -hffv --hf-file-v -hfd -hfrd --hf-repo-draft --spec-draft-hf -mmu --mmproj-url -mv --model-vocoder "
    "--log-file --log-disable --log-prompts-dir --slot-save-path -lcd --lookup-cache-dynamic -lcs "
    "--lookup-cache-static --grammar-file -jf --json-schema-file --lora --lora-scaled --control-vector "
    "--control-vector-scaled --chat-template-file -mm --mmproj -md --model-draft --spec-draft-model "
    "--tools --tools-runtime -ag --agent --ui-config-file --webui-config-file --ui-mcp-proxy --webui-mcp-proxy "
    "--ssl-key-file --ssl-cert-file --props --no-slots -h --help --usage --version -cl --cache-list "
    "--completion-bash --list-devices --video-ffmpeg-dir"
)
_LLAMACPP_DENIED = frozenset(_LLAMACPP_WORDS.split())
_LLAMACPP_DENIED_PREFIXES = ("--models-", "--mcp-", "--hf-", "--api-key", "--cors-")
_LLAMACPP_PRESET = re.compile(r"--(embd|fim|gpt-oss|vision)-.+-(default|spec)")

_VLLM_WORDS = (
    "--host --port --uds --api-key --served-model-name --model --model-tag --config --root-path --middleware "
    "--ssl-keyfile --ssl-certfile --ssl-ca-certs --ssl-cert-reqs --ssl-ciphers --enable-ssl-refresh "
    "--allowed-origins --allowed-methods --allowed-headers --allow-credentials --hf-token --download-dir "
    "--allowed-local-media-path --tool-parser-plugin --reasoning-parser-plugin --logits-processors --worker-cls "
    "--worker-extension-cls --scheduler-cls --load-format --disable-log-stats --uvicorn-log-level --shutdown-timeout "
    "--headless --io-processor-plugin --help -h --version -v --tool-server --log-config-file --logging-config --grpc "
    "--grpc-port --model-class-overrides --profiler-config --weight-transfer-config --mm-encoder-fp8-scale-save-path"
)
_VLLM_DENIED = frozenset(_VLLM_WORDS.split())

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ENV_WORDS = (
    "PATH HOME SHELL ENV BASH_ENV CUDA_VISIBLE_DEVICES NVIDIA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES "
    "ROCR_VISIBLE_DEVICES GGML_VK_VISIBLE_DEVICES HF_TOKEN HUGGING_FACE_HUB_TOKEN HF_HUB_OFFLINE HF_ENDPOINT "
    "LLAMA_API_KEY VLLM_API_KEY VLLM_PORT VLLM_HOST_IP VLLM_PLUGINS VLLM_SERVER_DEV_MODE "
    "VLLM_ALLOW_INSECURE_SERIALIZATION VLLM_ALLOW_RUNTIME_LORA_UPDATING VLLM_LOGGING_CONFIG_PATH GCONV_PATH "
    "GGML_BACKEND_PATH LLAMA_LOG_FILE"
)
_ENV_DENIED = frozenset(_ENV_WORDS.split())
_ENV_DENIED_PREFIXES = ("CORTEX_", "LLAMA_ARG_", "LD_", "DYLD_", "PYTHON")
MAX_WORD = 4096


def check_arguments(engine: EngineType, arguments: Sequence[str]) -> None:
    """Refuse an argument that Cortex decides itself.

    Raises:
        DomainError: 422 `denied_argument`, naming the argument.
    """
    for argument in arguments:
        if not argument or len(argument) > MAX_WORD:
            raise _denied("extra_args", argument[:40], "is empty or too long")
        if not argument.startswith("-") or _is_number(argument):
            continue
        flag = _normalized(argument)
        denied = _denied_by_llamacpp(flag) if engine is EngineType.LLAMACPP else _denied_by_vllm(flag)
        if denied:
            raise _denied("extra_args", flag, "is decided by Cortex and cannot be set")


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse a variable that Cortex decides itself or that changes what the engine's process loads.

    Raises:
        DomainError: 422 `denied_argument`, naming the variable.
    """
    for name, value in environment.items():
        if _ENV_NAME.fullmatch(name) is None or len(value) > MAX_WORD:
            raise _denied("extra_env", name[:40], "is not a usable variable")
        if name.upper() in _ENV_DENIED or name.upper().startswith(_ENV_DENIED_PREFIXES):
            raise _denied("extra_env", name, "is decided by Cortex and cannot be set")


def _normalized(argument: str) -> str:
    """The flag alone, as both parsers read it: without value, underscores as dashes."""
    flag = argument.split("=", 1)[0]
    return flag.replace("_", "-") if flag.startswith("--") else flag


def _denied_by_llamacpp(flag: str) -> bool:
    return (
        flag in _LLAMACPP_DENIED
        or flag.startswith(_LLAMACPP_DENIED_PREFIXES)
        or _LLAMACPP_PRESET.fullmatch(flag) is not None
    )


def _denied_by_vllm(flag: str) -> bool:
    """Also abbreviations: argparse may complete a unique beginning of a long option."""
    if not flag.startswith("--"):
        return flag in _VLLM_DENIED
    head = flag.split(".", 1)[0]
    if head in _VLLM_DENIED or head in ("--", "--no"):
        return True
    return any(known.startswith(head) for known in _VLLM_DENIED)


def _is_number(argument: str) -> bool:
    try:
        float(argument)
    except ValueError:
        return False
    return True


def _denied(field: str, name: str, what: str) -> DomainError:
    message = f"{name!r} {what}."
    return DomainError(
        "denied_argument",
        message,
        status=422,
        details={
            "argument": name,
            "errors": [{"field": field, "code": "denied_argument", "message": message}],
        },
    )
