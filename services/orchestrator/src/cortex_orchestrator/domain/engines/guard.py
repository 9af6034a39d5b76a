"""What no model may say for itself, whoever wrote its document: the registry refuses it, and so do the builders.

Routing, health and keys depend on addresses and names that Cortex decides; tools, files and other people's servers
would let an engine do more than serve.
"""

from collections.abc import Mapping, Sequence

from cortex_orchestrator.domain.engines.rules import flag_of
from cortex_orchestrator.domain.spec import SpecError

_LLAMACPP_WORDS = (
    "--host --port --reuse-port -a --alias --api-key --api-key-file --api-prefix --path --media-path -m --model "
    "-mu --model-url -dr --docker-repo -hf -hfr --hf-repo -hff --hf-file -hft --hf-token -mmu --mmproj-url "
    "--log-file --log-disable --log-prompts-dir --slot-save-path --tools --tools-runtime -ag --agent "
    "--ui-mcp-proxy --webui-mcp-proxy --ssl-key-file --ssl-cert-file --props --no-slots "
    "-h --help --usage --version -cl --cache-list --completion-bash --list-devices"
)
_LLAMACPP = frozenset(_LLAMACPP_WORDS.split())
_LLAMACPP_FAMILIES = ("--models-", "--mcp-", "--hf-", "--api-key")
_VLLM_WORDS = (
    "--host --port --uds --api-key --served-model-name --model --model-tag --config --root-path --middleware "
    "--ssl-keyfile --ssl-certfile --ssl-ca-certs --ssl-cert-reqs --ssl-ciphers --hf-token --download-dir "
    "--allowed-local-media-path --tool-parser-plugin --reasoning-parser-plugin --logits-processors --worker-cls "
    "--worker-extension-cls --scheduler-cls --disable-log-stats --uvicorn-log-level --shutdown-timeout --headless "
    "--grpc --io-processor-plugin --help -h --version -v"
)
_VLLM = frozenset(_VLLM_WORDS.split())
_ENVIRONMENT = frozenset(("LLAMA_API_KEY", "VLLM_API_KEY", "VLLM_PORT", "VLLM_HOST_IP", "HF_TOKEN", "PATH", "HOME"))
_ENVIRONMENT_FAMILIES = ("LLAMA_ARG_", "CORTEX_", "LD_")


def check_llamacpp(words: Sequence[str]) -> None:
    """Refuse free arguments of a llama-server that override what Cortex decides.

    Raises:
        SpecError: `denied_argument`.
    """
    for flag in filter(None, map(flag_of, words)):
        if flag in _LLAMACPP or flag.startswith(_LLAMACPP_FAMILIES):
            raise _denied(flag)


def check_vllm(words: Sequence[str]) -> None:
    """The same for vLLM, whose parser also takes the beginning of a long option for the whole.

    Raises:
        SpecError: `denied_argument`.
    """
    for flag in filter(None, map(flag_of, words)):
        head = flag.split(".", 1)[0]
        if head in _VLLM or (head.startswith("--") and any(name.startswith(head) for name in _VLLM)):
            raise _denied(flag)


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse variables that stand for an option that Cortex decides.

    Raises:
        SpecError: `denied_argument`.
    """
    for name in environment:
        if name.upper() in _ENVIRONMENT or name.upper().startswith(_ENVIRONMENT_FAMILIES):
            raise _denied(name)


def _denied(name: str) -> SpecError:
    return SpecError("denied_argument", f"{name} is decided by Cortex and cannot be set.")
