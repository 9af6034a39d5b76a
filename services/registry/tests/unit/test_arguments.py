"""The deny lists, and paths."""

import pytest

from cortex_contracts.enums import EngineType
from cortex_kit.errors import DomainError
from cortex_registry.domain.arguments import check_arguments, check_environment
from cortex_registry.domain.paths import below_root


@pytest.mark.parametrize(
    ("engine", "argument"),
    [
        *(
            ("llamacpp", flag)
            for flag in (
                "--host", "--port=1", "--alias", "-a", "--api-key", "--api_key", "--api-key-file=x", "-m", "--model",
                "-hf", "-hff", "-hfd", "--hf-repo", "--hf_repo", "--hf-token", "-mu", "--models-dir", "--models-preset",
                "--log-file", "--slot-save-path", "--path", "--media-path", "--tools", "--agent", "-ag",
                "--ui-mcp-proxy", "--webui-mcp-proxy", "--mcp-servers-config", "--mcp-servers-json", "--ssl-key-file",
                "--docker-repo", "--gpt-oss-20b-default", "--fim-qwen-7b-spec", "--no-slots", "--help",
                "--video-ffmpeg-dir", "--embd-gemma-default",
            )
        ),
        *(
            ("vllm", flag)
            for flag in (
                "--host", "--port", "--uds=/x", "--api-key", "--api_key=x", "--served-model-name", "--served_model_name",
                "--model", "--config", "--middleware", "--ssl-keyfile", "--hos", "--serv", "--tool-parser-plugin",
                "--worker-extension-cls", "--disable-log-stats", "--shutdown-timeout", "--allowed-local-media-path",
                "--load-format", "-h", "--tool-server", "--tool-serv", "--log-config-file", "--logging-config.formatter",
                "--grpc", "--grpc-port", "--model-class-overrides", "--profiler-config", "--weight-transfer-config",
            )
        ),
    ],
)  # fmt: skip
def test_a_denied_argument_is_named(engine: str, argument: str) -> None:
    with pytest.raises(DomainError) as caught:
        check_arguments(EngineType(engine), ["--seed", "1", argument])
    assert (caught.value.code, caught.value.status) == ("denied_argument", 422)
    assert caught.value.details["argument"] == argument.split("=")[0].replace("_", "-")


@pytest.mark.parametrize(
    ("engine", "arguments"),
    [
        (
            "llamacpp",
            ["--temp", "0.2", "-t", "4", "-0.5", "-1", "--override-kv", "a=int:1", "--no-warmup", "-fa", "on"],
        ),
        ("llamacpp", ["--embd-normalize", "2", "--log-verbosity", "5", "--lazy-mode", "on"]),
        ("vllm", ["--logprobs-mode", "x", "--log-level", "info", "--tokens-only"]),
        ("llamacpp", ["--spec-default", "--spec-type", "ngram-simple", "--metrics", "plain value"]),
        ("vllm", ["--seed", "1", "--max-log-len=3", "--enable-auto-tool-choice", "--model-impl", "auto", "-tp", "2"]),
        ("vllm", ["--config-format", "hf", "--tokenizer-mode", "slow", "-O3", "--compilation-config.mode", "1"]),
    ],
)
def test_other_arguments_pass(engine: str, arguments: list[str]) -> None:
    check_arguments(EngineType(engine), arguments)


@pytest.mark.parametrize(
    "name",
    ["CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "LLAMA_API_KEY", "LLAMA_ARG_HOST", "VLLM_API_KEY", "HF_TOKEN", "PATH",
     "PYTHONPATH", "CORTEX_SECRET_KEY", "ld_preload", "GGML_BACKEND_PATH", "VLLM_LOGGING_CONFIG_PATH", "a b", "", "A=B", "1A"],
)  # fmt: skip
def test_a_denied_variable_is_named(name: str) -> None:
    with pytest.raises(DomainError) as caught:
        check_environment({"OK": "1", name: "x"})
    assert caught.value.code == "denied_argument"
    assert caught.value.details["argument"] == name


def test_other_variables_pass() -> None:
    check_environment({"NCCL_DEBUG": "INFO", "GGML_CUDA_ENABLE_UNIFIED_MEMORY": "1", "VLLM_LOGGING_LEVEL": "DEBUG"})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.gguf", "a.gguf"),
        ("dir/sub/a.gguf", "dir/sub/a.gguf"),
        ("./dir//a.gguf", "dir/a.gguf"),
        ("/models/dir/a.gguf", "dir/a.gguf"),
        ("a:b.gguf", "a:b.gguf"),
        ("..hidden.gguf", "..hidden.gguf"),
        ("/etc/passwd", "path_outside_models_root"),
        ("/models", "path_outside_models_root"),
        ("/models-other/a.gguf", "path_outside_models_root"),
        ("/models/../etc/passwd", "path_outside_models_root"),
        ("..", "path_outside_models_root"),
        ("a/../../b", "path_outside_models_root"),
        ("a\\..\\b", "path_outside_models_root"),
        ("", "invalid_path"),
        (".", "invalid_path"),
        ("a\x00b", "invalid_path"),
        ("a\nb", "invalid_path"),
        ("-m", "invalid_path"),
        ("x" * 1025, "invalid_path"),
    ],
)
def test_paths_stay_below_the_root(path: str, expected: str) -> None:
    assert _outcome(path) == expected


def _outcome(path: str) -> str:
    try:
        return below_root(path, "local_path", "/models")
    except DomainError as error:
        return error.code


def test_without_a_known_root_every_absolute_path_is_refused() -> None:
    with pytest.raises(DomainError) as caught:
        below_root("/models/a.gguf", "local_path")
    assert caught.value.code == "path_outside_models_root"
