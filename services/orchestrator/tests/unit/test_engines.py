"""Options of a model to the words of a command line."""

from collections.abc import Callable

import pytest

from cortex_contracts.base import ModelId, NodeId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.engines import LlamaCppOptions, LoraAdapter, VllmOptions
from cortex_contracts.enums import EngineType, Task
from cortex_orchestrator.domain.engines import ENGINES, BuildRequest
from cortex_orchestrator.domain.engines.capabilities import parse_help
from cortex_orchestrator.domain.spec import (
    HOST,
    PORT,
    Capabilities,
    Command,
    ContainerSpec,
    Mount,
    Program,
    ReplicaKey,
    SpecError,
)
from cortex_orchestrator.handlers.specs import NodeProfile, build_spec

HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
-m,    --model FNAME                    model path to load
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
                                        (env: LLAMA_ARG_CTX_SIZE)
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading (default: enabled)
--spec-draft-model, -md, --model-draft FNAME
                                        draft model for speculative decoding (default: unused)
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI (default: enabled)
"""

OLD = frozenset(
    [
        "--model",
        "--alias",
        "--host",
        "--port",
        "--metrics",
        "--no-webui",
        "-lv",
        "--verbosity",
        "--ctx-size",
        "--batch-size",
        "--flash-attn",
        "--mlock",
        "--no-mmap",
        "--mmap",
        "--n-gpu-layers",
        "--model-draft",
        "--draft-max",
        "--draft-p-min",
    ]
)
NEW = frozenset(
    [
        "--model",
        "--alias",
        "--host",
        "--port",
        "--metrics",
        "--no-ui",
        "--offline",
        "--log-verbosity",
        "--ctx-size",
        "--batch-size",
        "--flash-attn",
        "--load-mode",
        "--cache-ram",
        "--n-gpu-layers",
        "--spec-draft-model",
        "--spec-type",
        "--spec-draft-n-max",
        "--spec-draft-p-min",
    ]
)


def test_help_lists_accepted_options_and_not_removed_ones() -> None:
    flags = parse_help(HELP).flags
    assert {"-h", "--help", "--usage", "-m", "--model", "-nkvo", "--no-kv-offload", "-md", "--no-ui"} <= flags
    assert not {"--draft", "--draft-max", "-", "--spec-ngram-mod-n-max"} & flags


def model(task: Task = Task.GENERATE, **options: object) -> ModelDocumentV1:
    return ModelDocumentV1(
        id=ModelId("m1"),
        name="M",
        served_model_name="served",
        engine_type=EngineType.LLAMACPP,
        local_path="folder/model.gguf",
        llamacpp=LlamaCppOptions.model_validate(options),
        task=task,
        aggregateversion=1,
    )


def llama(document: ModelDocumentV1, flags: frozenset[str] = frozenset()) -> tuple[str, ...]:
    request = BuildRequest(document, Program("llama-server", Capabilities(flags)), "/models")
    return ENGINES[EngineType.LLAMACPP].build(request).argv


def test_the_essentials_are_always_there() -> None:
    words = " ".join(llama(model()))
    for part in (
        "--model /models/folder/model.gguf",
        "--alias served",
        f"--host {HOST}",
        f"--port {PORT}",
        "--ctx-size 8192",
        "--batch-size 512",
        "--flash-attn on",
        "--cache-ram 1024",
        "--metrics",
        "--no-ui",
        "--log-verbosity 4",
    ):
        assert part in words
    assert "--n-gpu-layers" not in words
    assert "--load-mode" not in words
    assert "api-key" not in words


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ngl": 0}, "--n-gpu-layers 0"),
        (
            {"ngl": 99, "split_mode": "row", "tensor_split": "3,1"},
            "--n-gpu-layers 99 --split-mode row --tensor-split 3,1",
        ),
        ({"flash_attention": False}, "--flash-attn off"),
        ({"mlock": True}, "--load-mode mmap+mlock"),
        ({"mlock": True, "no_mmap": True}, "--load-mode mlock"),
        ({"no_mmap": True}, "--load-mode none"),
        ({"cache_ram_mib": 0}, "--cache-ram 0"),
        ({"kv_unified": True, "parallel_slots": 4}, "--parallel 4 --kv-unified"),
        ({"kv_unified": False}, "--no-kv-unified"),
        ({"cache_type_k": "q8_0", "cache_type_v": "q4_0"}, "--cache-type-k q8_0 --cache-type-v q4_0"),
        ({"threads": 3, "numa_policy": "isolate"}, "--threads 3 --numa isolate"),
        ({"rope_freq_base": 1e6, "rope_freq_scale": 0.5}, "--rope-freq-base 1000000.0 --rope-freq-scale 0.5"),
        ({"jinja_enabled": False}, "--no-jinja"),
        ({"jinja_enabled": True, "chat_template": "chatml"}, "--jinja --chat-template chatml"),
        (
            {"chat_template_file": "t.jinja", "mmproj_path": "p.gguf"},
            "--chat-template-file /models/t.jinja --mmproj /models/p.gguf",
        ),
        ({"check_tensors": True, "skip_warmup": True}, "--check-tensors --no-warmup"),
        ({"verbose_logging": True}, "--log-verbosity 5"),
        (
            {"draft_model_path": "d.gguf", "draft_n": 5, "draft_p_min": 0.0},
            "--spec-draft-model /models/d.gguf --spec-type draft-simple --spec-draft-n-max 5 --spec-draft-p-min 0.0",
        ),
        (
            {"lora_adapters": (LoraAdapter(path="a.gguf"), LoraAdapter(path="b.gguf", scale=0.5))},
            "--lora-scaled /models/a.gguf:1,/models/b.gguf:0.5",
        ),
    ],
)
def test_an_option_becomes_its_flag(options: dict[str, object], expected: str) -> None:
    assert expected in " ".join(llama(model(**options)))


@pytest.mark.parametrize(
    ("task", "options", "expected"),
    [
        (Task.GENERATE, {}, ()),
        (Task.EMBED, {"pooling": "mean"}, ("--pooling", "mean", "--embeddings")),
        (Task.RERANK, {}, ("--rerank",)),
    ],
)
def test_the_task_decides_the_mode(task: Task, options: dict[str, object], expected: tuple[str, ...]) -> None:
    words = llama(model(task, **options))
    assert words[len(words) - len(expected) :] == expected


@pytest.mark.parametrize(
    ("flags", "expected", "absent"),
    [
        (OLD, "--mlock --no-mmap", "--load-mode"),
        (OLD, "--no-webui", "--no-ui"),
        (OLD, "--verbosity 4", "--log-verbosity"),
        (OLD, "--model-draft /models/d.gguf --draft-max 4", "--spec-type"),
        (NEW, "--load-mode mlock", "--mlock"),
        (NEW, "--no-ui --offline", "--no-webui"),
        (NEW, "--spec-draft-n-max 4", "--draft-max"),
    ],
)
def test_the_build_decides_the_spelling(flags: frozenset[str], expected: str, absent: str) -> None:
    words = llama(model(mlock=True, no_mmap=True, draft_model_path="d.gguf", draft_n=4), flags)
    assert expected in " ".join(words)
    assert absent not in words
    assert {word for word in words if word.startswith("-")} <= flags


def test_an_option_that_the_build_lacks_is_refused_with_its_name() -> None:
    with pytest.raises(SpecError, match="--numa") as caught:
        llama(model(numa_policy="isolate"), OLD)
    assert caught.value.code == "engine_option_unsupported"


def test_free_arguments_come_last_and_the_environment_is_passed() -> None:
    document = model().model_copy(update={"extra_args": ("--poll", "0"), "extra_env": {"A": "b"}})
    command = ENGINES[EngineType.LLAMACPP].build(BuildRequest(document, Program("x"), "/models"))
    assert command.argv[-2:] == ("--poll", "0")
    assert command.env == {"A": "b"}
    assert command.api_key_env == "LLAMA_API_KEY"


@pytest.mark.parametrize(
    ("changes", "root", "code"),
    [
        ({"local_path": None}, "/models", "model_path_missing"),
        ({"local_path": "../x.gguf"}, "/models", "path_outside_models_root"),
        ({"local_path": "/etc/passwd"}, "/models", "path_outside_models_root"),
        ({}, None, "models_dir_missing"),
        ({"llamacpp": LlamaCppOptions(lora_adapters=(LoraAdapter(path="a:b"),))}, "/models", "lora_path_invalid"),
    ],
)
def test_a_model_without_a_usable_file_is_refused(changes: dict[str, object], root: str | None, code: str) -> None:
    document = model().model_copy(update=changes)
    with pytest.raises(SpecError) as caught:
        ENGINES[EngineType.LLAMACPP].build(BuildRequest(document, Program("x"), root))
    assert caught.value.code == code


def vllm(task: Task = Task.GENERATE, *, stop: int = 30, **options: object) -> Command:
    document = model(task).model_copy(
        update={
            "engine_type": EngineType.VLLM,
            "local_path": None,
            "repo_id": "org/name",
            "vllm": VllmOptions.model_validate(options),
            "stop_timeout_s": stop,
        }
    )
    return ENGINES[EngineType.VLLM].build(BuildRequest(document, Program("vllm"), "/models"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "org/name --served-model-name served"),
        ({}, "--gpu-memory-utilization 0.9"),
        ({"tp_size": 4}, "--tensor-parallel-size 4"),
        ({"max_model_len": 4096, "kv_cache_dtype": "fp8"}, "--max-model-len 4096 --kv-cache-dtype fp8"),
        ({"enable_prefix_caching": False}, "--no-enable-prefix-caching"),
        ({"enable_chunked_prefill": True}, "--enable-chunked-prefill"),
        ({"tool_call_parser": "openai"}, "--enable-auto-tool-choice --tool-call-parser openai"),
        ({"reasoning_parser": "openai_gptoss"}, "--reasoning-parser openai_gptoss"),
        ({"enforce_eager": True, "trust_remote_code": True}, "--enforce-eager --trust-remote-code"),
        ({}, "--shutdown-timeout 20"),
    ],
)
def test_a_vllm_option_becomes_its_flag(options: dict[str, object], expected: str) -> None:
    assert expected in " ".join(vllm(**options).argv)


def test_no_flag_that_vllm_has_dropped_is_used() -> None:
    words = vllm(dtype="half", cpu_offload_gb=1, block_size=16, max_num_seqs=8).argv
    assert not {"--swap-space", "--device", "--task", "--disable-log-requests", "--api-key"} & set(words)


def test_vllm_pools_for_embeddings_and_waits_for_its_clients() -> None:
    command = vllm(Task.EMBED, stop=5)
    assert command.argv[-6:] == ("--runner", "pooling", "--convert", "embed", "--shutdown-timeout", "1")
    assert ENGINES[EngineType.VLLM].stop_policy(5).deadline_s == 11
    assert ENGINES[EngineType.VLLM].stop_policy(5).second_term_s is None
    assert (command.entrypoint, command.env["VLLM_NO_USAGE_STATS"]) == (("vllm", "serve"), "1")


def test_vllm_refuses_a_gguf_file_at_once() -> None:
    document = model().model_copy(update={"engine_type": EngineType.VLLM})
    with pytest.raises(SpecError) as caught:
        ENGINES[EngineType.VLLM].build(BuildRequest(document, Program("vllm"), "/models"))
    assert caught.value.code == "gguf_needs_llamacpp"


PROFILE = NodeProfile(NodeId("n"), "/models", mounts=(Mount("/srv/models", "/models"),))


def spec(**changes: object) -> ContainerSpec:
    return build_spec(ReplicaKey(model().model_copy(update=changes), 0), Program("image:1"), PROFILE)


def test_the_hash_is_stable_and_ignores_what_does_not_reach_the_engine() -> None:
    assert spec().hash == spec().hash
    unimportant = {"name": "other", "stop_timeout_s": 99, "hf_token_sealed": "x", "replicas": 3, "aggregateversion": 7}
    assert spec(**unimportant).hash == spec().hash


@pytest.mark.parametrize(
    "changes",
    [
        {"restart_generation": 1},
        {"served_model_name": "other"},
        {"extra_env": {"A": "b"}},
        {"placement": (1,)},
        {"local_path": "b.gguf"},
        {"llamacpp": LlamaCppOptions(ngl=0)},
    ],
)
def test_the_hash_changes_with_what_the_engine_is(changes: dict[str, object]) -> None:
    assert spec(**changes).hash != spec().hash


def test_the_program_is_part_of_the_hash_and_the_name_follows_the_model() -> None:
    other = build_spec(ReplicaKey(model(), 0), Program("image:2"), PROFILE)
    assert other.hash != spec().hash
    assert other.name == "llamacpp-model-m1-0"
    assert other.labels(2)["cortex.restarts"] == "2"


def test_every_engine_type_has_an_engine(make_spec: Callable[..., ContainerSpec]) -> None:
    assert set(ENGINES) == set(EngineType)
