"""Options of a model to the words of `vllm serve`, in the spelling of the real 0.32."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.engines import VllmOptions
from cortex_contracts.enums import EngineType, Task
from cortex_orchestrator.domain.engines import BuildRequest, vllm
from cortex_orchestrator.domain.engines.capabilities import parse_help
from cortex_orchestrator.domain.engines.vllm_flags import FLAGS
from cortex_orchestrator.domain.spec import HOST, PORT, Capabilities, Command, Program, SpecError

HELP = Path(__file__).parents[1] / "data" / "help"

WORDS: dict[str, tuple[Any, str]] = {
    "dtype": ("half", "--dtype half"),
    "tp_size": (4, "--tensor-parallel-size 4"),
    "pipeline_parallel_size": (2, "--pipeline-parallel-size 2"),
    "gpu_memory_utilization": (0.5, "--gpu-memory-utilization 0.5"),
    "max_model_len": (4096, "--max-model-len 4096"),
    "kv_cache_dtype": ("fp8", "--kv-cache-dtype fp8"),
    "max_num_batched_tokens": (8192, "--max-num-batched-tokens 8192"),
    "max_num_seqs": (8, "--max-num-seqs 8"),
    "quantization": ("awq", "--quantization awq"),
    "block_size": (16, "--block-size 16"),
    "cpu_offload_gb": (1.5, "--cpu-offload-gb 1.5"),
    "enforce_eager": (True, "--enforce-eager"),
    "trust_remote_code": (True, "--trust-remote-code"),
    "enable_prefix_caching": (False, "--no-enable-prefix-caching"),
    "prefix_caching_hash_algo": ("xxhash", "--prefix-caching-hash-algo xxhash"),
    "enable_chunked_prefill": (True, "--enable-chunked-prefill"),
    "tokenizer": ("org/tokenizer", "--tokenizer org/tokenizer"),
    "hf_config_path": ("org/config", "--hf-config-path org/config"),
    "attention_backend": ("FLASHINFER", "--attention-backend FLASHINFER"),
    "tool_call_parser": ("openai", "--enable-auto-tool-choice --tool-call-parser openai"),
    "reasoning_parser": ("openai_gptoss", "--reasoning-parser openai_gptoss"),
    "kv_cache_memory_bytes": (2**30, "--kv-cache-memory-bytes 1073741824"),
    "kv_offloading_size": (4.0, "--kv-offloading-size 4.0"),
    "cuda_graph_sizes": ((1, 2, 4), "--cudagraph-capture-sizes 1 2 4"),
    "max_cudagraph_capture_size": (64, "--max-cudagraph-capture-size 64"),
    "optimization_level": (0, "--optimization-level 0"),
    "performance_mode": ("throughput", "--performance-mode throughput"),
    "data_parallel_size": (2, "--data-parallel-size 2"),
    "enable_expert_parallel": (True, "--enable-expert-parallel"),
    "distributed_executor_backend": ("mp", "--distributed-executor-backend mp"),
    "disable_custom_all_reduce": (True, "--disable-custom-all-reduce"),
    "numa_bind": (True, "--numa-bind"),
    "enable_lora": (True, "--enable-lora"),
    "lora_modules": (
        [{"name": "sql", "path": "adapters/sql"}, {"name": "chat", "repo_id": "org/chat"}],
        '--enable-lora --lora-modules {"name":"sql","path":"/models/adapters/sql"} {"name":"chat","path":"org/chat"}',
    ),
    "max_loras": (2, "--max-loras 2"),
    "max_lora_rank": (64, "--max-lora-rank 64"),
    "max_cpu_loras": (8, "--max-cpu-loras 8"),
    "fully_sharded_loras": (True, "--fully-sharded-loras"),
    "revision": ("main", "--revision main"),
    "tokenizer_revision": ("v2", "--tokenizer-revision v2"),
    "tokenizer_mode": ("mistral", "--tokenizer-mode mistral"),
    "config_format": ("hf", "--config-format hf"),
    "model_impl": ("transformers", "--model-impl transformers"),
    "safetensors_load_strategy": ("prefetch", "--safetensors-load-strategy prefetch"),
    "hf_overrides": ({"rope_theta": 1}, '--hf-overrides {"rope_theta":1}'),
    "generation_config": ("vllm", "--generation-config vllm"),
    "override_generation_config": ({"top_p": 0.5}, '--override-generation-config {"top_p":0.5}'),
    "pooler_config": ({"normalize": True}, '--pooler-config {"normalize":true}'),
    "chat_template": ("{{ messages }}", "--chat-template {{ messages }}"),
    "chat_template_file": ("t.jinja", "--chat-template /models/t.jinja"),
    "chat_template_content_format": ("string", "--chat-template-content-format string"),
    "chat_template_kwargs": ({"enable_thinking": False}, '--default-chat-template-kwargs {"enable_thinking":false}'),
    "limit_mm_per_prompt": ({"image": 4}, '--limit-mm-per-prompt {"image":4}'),
    "mm_processor_kwargs": ({"num_crops": 4}, '--mm-processor-kwargs {"num_crops":4}'),
    "mm_processor_cache_gb": (0.0, "--mm-processor-cache-gb 0.0"),
    "language_model_only": (True, "--language-model-only"),
    "scheduling_policy": ("priority", "--scheduling-policy priority"),
    "async_scheduling": (False, "--no-async-scheduling"),
    "long_prefill_token_threshold": (512, "--long-prefill-token-threshold 512"),
    "stream_interval": (2, "--stream-interval 2"),
    "max_logprobs": (-1, "--max-logprobs -1"),
    "disable_sliding_window": (True, "--disable-sliding-window"),
    "speculative_method": ("mtp", '--speculative-config {"method":"mtp"}'),
    "draft_model_path": ("draft", '--speculative-config {"model":"/models/draft"}'),
    "draft_repo_id": ("org/draft", '--speculative-config {"model":"org/draft"}'),
    "draft_n": (3, '--speculative-config {"num_speculative_tokens":3}'),
    "prompt_lookup_max": (4, '--speculative-config {"prompt_lookup_max":4}'),
    "prompt_lookup_min": (2, '--speculative-config {"prompt_lookup_min":2}'),
    "enable_log_requests": (True, "--enable-log-requests"),
    "max_log_len": (0, "--max-log-len 0"),
    "verbose_logging": (True, ""),
}
"""Every option of the contract: a value, and its words at 0.32."""


@cache
def recorded() -> Capabilities:
    return parse_help((HELP / "vllm-0.32.0.txt").read_text())


def model(task: Task = Task.GENERATE, **options: object) -> ModelDocumentV1:
    return ModelDocumentV1(
        id=ModelId("m1"),
        name="M",
        served_model_name="served",
        engine_type=EngineType.VLLM,
        repo_id="org/name",
        vllm=VllmOptions.model_validate(options),
        task=task,
        aggregateversion=1,
    )


def build(document: ModelDocumentV1, program: Program | None = None) -> Command:
    return vllm.ENGINE.build(BuildRequest(document, program or Program("vllm"), "/models"))


def line(document: ModelDocumentV1) -> str:
    return " ".join(build(document).argv)


def flags(words: tuple[str, ...]) -> set[str]:
    return {word for word in words if word.startswith("-") and not word[1:2].isdigit()}


def test_the_list_of_known_options_is_the_recorded_one() -> None:
    assert recorded().flags == FLAGS


def test_every_option_of_the_contract_has_its_words() -> None:
    assert set(WORDS) == set(VllmOptions.model_fields)


@pytest.mark.parametrize("option", WORDS)
def test_an_option_becomes_words_that_the_version_lists(option: str) -> None:
    value, expected = WORDS[option]
    document = model(**{option: value})
    command = build(document, Program("vllm", recorded()))
    assert f" {expected} " in f"  {' '.join(command.argv)} "
    assert flags(command.argv) <= FLAGS
    assert command.warnings == ()
    assert build(document).argv == command.argv


def test_the_essentials_are_always_there() -> None:
    words = line(model())
    assert words.startswith(f"org/name --served-model-name served --host {HOST} --port {PORT} ")
    for part in ("--gpu-memory-utilization 0.9", "--enable-prompt-tokens-details", "--shutdown-timeout 20"):
        assert part in words
    assert not {"--swap-space", "--device", "--task", "--disable-log-requests", "--api-key"} & set(words.split())


def test_usage_statistics_stay_at_home_and_the_log_can_be_verbose() -> None:
    command = build(model())
    assert command.env == {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    assert command.entrypoint == ("vllm", "serve")
    assert build(model(verbose_logging=True)).env["VLLM_LOGGING_LEVEL"] == "DEBUG"


def test_a_local_model_is_served_offline_with_companions_from_the_models_folder() -> None:
    document = model(tokenizer="other/tokenizer").model_copy(update={"repo_id": None, "local_path": "llama"})
    command = build(document)
    assert command.argv[0] == "/models/llama"
    assert command.env["HF_HUB_OFFLINE"] == "1"
    assert "--tokenizer /models/other/tokenizer" in " ".join(command.argv)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (Task.GENERATE, None),
        (Task.EMBED, "--runner pooling --convert embed"),
        (Task.RERANK, "--runner pooling --convert classify"),
    ],
)
def test_the_task_decides_the_runner(task: Task, expected: str | None) -> None:
    words = line(model(task))
    assert expected in words if expected else "--runner" not in words


def test_the_stop_waits_for_what_vllm_drains() -> None:
    document = model().model_copy(update={"stop_timeout_s": 5})
    assert "--shutdown-timeout 1" in line(document)
    assert vllm.ENGINE.stop_policy(5).deadline_s == 11
    assert vllm.ENGINE.stop_policy(60).deadline_s == 60
    assert vllm.ENGINE.stop_policy(5).second_term_s is None


@pytest.mark.parametrize(
    ("program", "version"),
    [
        (Program("vllm/vllm-openai:v0.32.0"), "0.32"),
        (Program("localhost:5000/vllm:v0.9.2-cu128"), "0.9"),
        (Program("vllm/vllm-openai:latest", version="sha256:0123"), None),
        (Program("host:5000/vllm"), None),
        (Program("/opt/vllm/bin/vllm", version="0.32.0+cpu"), "0.32"),
    ],
)
def test_the_version_is_read_from_the_package_or_the_tag(program: Program, version: str | None) -> None:
    assert vllm.version_of(program) == version
    assert vllm.ENGINE.must_ask(program) == (version != "0.32")


def test_another_version_that_nobody_asked_gets_a_warning() -> None:
    command = build(model(), Program("vllm/vllm-openai:v0.40.0"))
    assert len(command.warnings) == 1
    assert "0.40" in command.warnings[0]
    assert "0.32" in command.warnings[0]


def test_an_older_version_gets_only_words_that_it_lists() -> None:
    old = Capabilities(
        frozenset(
            [
                "--served-model-name",
                "--host",
                "--port",
                "--gpu-memory-utilization",
                "--max-model-len",
                "--tensor-parallel-size",
                "--pipeline-parallel-size",
                "--dtype",
                "--task",
                "--cuda-graph-sizes",
            ]
        )
    )
    document = model(Task.EMBED, performance_mode="balanced", cuda_graph_sizes=(1, 2))
    command = build(document, Program("vllm", old))
    assert flags(command.argv) <= old.flags
    assert "--cuda-graph-sizes 1 2" in " ".join(command.argv)
    assert "--task embed" in " ".join(command.argv)
    assert "performance_mode" in command.warnings[0]
    assert "--shutdown-timeout" in command.warnings[-1]


def test_a_version_that_lacks_what_makes_the_model_is_refused() -> None:
    lacking = Capabilities(FLAGS - {"--hf-overrides"})
    with pytest.raises(SpecError, match="--hf-overrides") as caught:
        build(model(hf_overrides={"a": 1}), Program("vllm", lacking))
    assert caught.value.code == "engine_option_unsupported"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"repo_id": None, "local_path": "folder/model.GGUF"}, "gguf_needs_llamacpp"),
        ({"repo_id": None}, "model_path_missing"),
        ({"repo_id": None, "local_path": "../x"}, "path_outside_models_root"),
        ({"vllm": {"tokenizer": "/etc/x"}}, "path_outside_models_root"),
        ({"vllm": {"chat_template": "/etc/passwd"}}, "chat_template_invalid"),
        ({"vllm": {"lora_modules": [{"name": "a"}]}}, "lora_source_invalid"),
        ({"vllm": {"lora_modules": [{"name": "a", "path": "../x"}]}}, "path_outside_models_root"),
        ({"vllm": {"draft_model_path": "/x"}}, "path_outside_models_root"),
        ({"extra_args": ["--host", "0.0.0.0"]}, "denied_argument"),
        ({"extra_args": ["--api_key=x"]}, "denied_argument"),
        ({"extra_args": ["--served-model", "x"]}, "denied_argument"),
        ({"extra_args": ["--shutdown-timeout", "0"]}, "denied_argument"),
        ({"extra_env": {"VLLM_API_KEY": "x"}}, "denied_argument"),
        ({"extra_args": ["--swap-space", "4"]}, "engine_option_unsupported"),
        ({"extra_args": ["--tensor-paralel-size", "4"]}, "engine_option_unsupported"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_stable_code(changes: dict[str, Any], code: str) -> None:
    document = ModelDocumentV1.model_validate({**model().model_dump(), **changes})
    with pytest.raises(SpecError) as caught:
        build(document)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "words", [("-O3",), ("--compilation-config.mode", "3"), ("--max_logprobs=5",), ("--seed", "-1"), ("-tp", "2")]
)
def test_free_arguments_that_the_parser_takes_are_passed(words: tuple[str, ...]) -> None:
    assert build(model().model_copy(update={"extra_args": words})).argv[-len(words) :] == words
