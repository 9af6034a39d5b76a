"""Options of a model to the words of a llama-server's command line, in the spelling of two real builds."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.engines import LlamaCppOptions
from cortex_contracts.enums import EngineType, Task
from cortex_orchestrator.domain.engines import BuildRequest, llamacpp
from cortex_orchestrator.domain.engines.capabilities import parse_help
from cortex_orchestrator.domain.spec import HOST, PORT, Capabilities, Command, Program, SpecError

HELP = Path(__file__).parents[1] / "data" / "help"
NOBODY_ASKED = Capabilities()
LACKING_AT_10434 = {"n_cpu_ffn", "lazy_mode", "kv_unified_per_slot"}

WORDS: dict[str, tuple[Any, str]] = {
    "ngl": (0, "--n-gpu-layers 0"),
    "tensor_split": ("3,1", "--tensor-split 3,1"),
    "batch_size": (1024, "--batch-size 1024"),
    "threads": (3, "--threads 3"),
    "context_size": (0, "--ctx-size 0"),
    "rope_freq_base": (1e6, "--rope-freq-base 1000000.0"),
    "rope_freq_scale": (0.5, "--rope-freq-scale 0.5"),
    "flash_attention": (False, "--flash-attn off"),
    "mlock": (True, "--load-mode mmap+mlock"),
    "no_mmap": (True, "--load-mode none"),
    "numa_policy": ("isolate", "--numa isolate"),
    "split_mode": ("row", "--split-mode row"),
    "ubatch_size": (256, "--ubatch-size 256"),
    "parallel_slots": (4, "--parallel 4"),
    "kv_unified": (True, "--kv-unified"),
    "cache_type_k": ("q8_0", "--cache-type-k q8_0"),
    "cache_type_v": ("q4_0", "--cache-type-v q4_0"),
    "cache_ram_mib": (0, "--cache-ram 0"),
    "check_tensors": (True, "--check-tensors"),
    "skip_warmup": (True, "--no-warmup"),
    "jinja_enabled": (False, "--no-jinja"),
    "chat_template": ("chatml", "--chat-template chatml"),
    "chat_template_file": ("t.jinja", "--chat-template-file /models/t.jinja"),
    "mmproj_path": ("p.gguf", "--mmproj /models/p.gguf"),
    "draft_model_path": ("d.gguf", "--spec-draft-model /models/d.gguf --spec-type draft-simple"),
    "draft_n": (5, "--spec-draft-n-max 5"),
    "draft_p_min": (0.0, "--spec-draft-p-min 0.0"),
    "lora_adapters": (
        [{"path": "a.gguf"}, {"path": "b.gguf", "scale": 0.5}],
        "--lora-scaled /models/a.gguf:1,/models/b.gguf:0.5",
    ),
    "pooling": ("mean", "--pooling mean"),
    "verbose_logging": (True, "--log-verbosity 5"),
    "threads_batch": (6, "--threads-batch 6"),
    "threads_http": (7, "--threads-http 7"),
    "main_gpu": (1, "--main-gpu 1"),
    "kv_offload": (False, "--no-kv-offload"),
    "n_cpu_moe": (12, "--n-cpu-moe 12"),
    "cpu_moe": (True, "--cpu-moe"),
    "n_cpu_ffn": (2, "--n-cpu-ffn 2"),
    "override_tensor": (r"blk\.[0-9]\.ffn=CPU", r"--override-tensor blk\.[0-9]\.ffn=CPU"),
    "override_kv": ("tokenizer.ggml.add_bos_token=bool:false", "--override-kv tokenizer.ggml.add_bos_token=bool:false"),
    "fit": (False, "--fit off"),
    "fit_target_mib": (512, "--fit-target 512"),
    "repack": (False, "--no-repack"),
    "op_offload": (False, "--no-op-offload"),
    "load_mode": ("dio", "--load-mode dio"),
    "lazy_mode": ("off", "--lazy-mode off"),
    "cont_batching": (False, "--no-cont-batching"),
    "kv_unified_per_slot": (4096, "--kv-unified-per-slot 4096"),
    "swa_full": (True, "--swa-full"),
    "ctx_checkpoints": (8, "--ctx-checkpoints 8"),
    "context_shift": (True, "--context-shift"),
    "cache_prompt": (False, "--no-cache-prompt"),
    "cache_reuse": (256, "--cache-reuse 256"),
    "slot_prompt_similarity": (0.5, "--slot-prompt-similarity 0.5"),
    "server_timeout_s": (900, "--timeout 900"),
    "rope_scaling": ("yarn", "--rope-scaling yarn"),
    "rope_scale": (4.0, "--rope-scale 4.0"),
    "yarn_orig_ctx": (4096, "--yarn-orig-ctx 4096"),
    "yarn_ext_factor": (0.0, "--yarn-ext-factor 0.0"),
    "yarn_attn_factor": (1.0, "--yarn-attn-factor 1.0"),
    "yarn_beta_slow": (1.0, "--yarn-beta-slow 1.0"),
    "yarn_beta_fast": (32.0, "--yarn-beta-fast 32.0"),
    "chat_template_kwargs": ({"b": 1, "a": False}, '--chat-template-kwargs {"a":false,"b":1}'),
    "reasoning": ("off", "--reasoning off"),
    "reasoning_format": ("deepseek", "--reasoning-format deepseek"),
    "reasoning_effort": ("low", "--reasoning-effort low"),
    "reasoning_budget": (-1, "--reasoning-budget -1"),
    "grammar_file": ("g.gbnf", "--grammar-file /models/g.gbnf"),
    "spec_type": ("ngram-simple", "--spec-type ngram-simple"),
    "draft_n_min": (0, "--spec-draft-n-min 0"),
    "draft_ngl": (0, "--spec-draft-ngl 0"),
    "draft_cache_type_k": ("q8_0", "--spec-draft-type-k q8_0"),
    "draft_cache_type_v": ("q8_0", "--spec-draft-type-v q8_0"),
    "lora_init_without_apply": (True, "--lora-init-without-apply"),
    "mmproj_offload": (False, "--no-mmproj-offload"),
    "image_min_tokens": (16, "--image-min-tokens 16"),
    "image_max_tokens": (1024, "--image-max-tokens 1024"),
    "embd_normalize": (-1, "--embd-normalize -1"),
}
"""Every option of the contract: a value, and its words at 11434."""

OLD = Capabilities(
    frozenset(
        [
            "--model",
            "--alias",
            "--host",
            "--port",
            "--no-webui",
            "-lv",
            "--verbosity",
            "--ctx-size",
            "--batch-size",
            "--flash-attn",
            "--mlock",
            "--no-mmap",
            "--n-gpu-layers",
            "--model-draft",
            "--draft-max",
            "--draft-p-min",
            "--embedding",
            "--lora-scaled",
        ]
    ),
    frozenset({"--flash-attn", "--mlock", "--no-mmap", "--no-webui"}),
)
"""A build of early 2025."""


@cache
def recorded(build: int) -> Capabilities:
    return parse_help((HELP / f"llama-server-{build}.txt").read_text())


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


def build(document: ModelDocumentV1, capabilities: Capabilities = NOBODY_ASKED) -> Command:
    return llamacpp.ENGINE.build(BuildRequest(document, Program("llama-server", capabilities), "/models"))


def line(document: ModelDocumentV1, capabilities: Capabilities = NOBODY_ASKED) -> str:
    return " ".join(build(document, capabilities).argv)


def flags(words: tuple[str, ...]) -> set[str]:
    return {word for word in words if word.startswith("-") and not word[1:2].isdigit()}


def test_every_option_of_the_contract_has_its_words() -> None:
    assert set(WORDS) == set(LlamaCppOptions.model_fields)


@pytest.mark.parametrize("option", WORDS)
def test_an_option_becomes_words_that_the_newest_build_lists(option: str) -> None:
    value, expected = WORDS[option]
    command = build(model(**{option: value}), recorded(11434))
    assert f" {expected} " in f" {' '.join(command.argv)} "
    assert flags(command.argv) <= recorded(11434).flags
    assert command.warnings == ()
    assert build(model(**{option: value})).argv == command.argv


@pytest.mark.parametrize("option", WORDS)
def test_an_older_build_gets_only_words_that_it_lists(option: str) -> None:
    command = build(model(**{option: WORDS[option][0]}), recorded(10434))
    assert flags(command.argv) <= recorded(10434).flags
    assert len(command.warnings) == (option in LACKING_AT_10434)


def test_the_essentials_are_always_there() -> None:
    words = f" {line(model())} "
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
        "--offline",
        "--log-verbosity 4",
    ):
        assert f" {part} " in words
    for absent in ("--n-gpu-layers", "--load-mode", "api-key", "--jinja"):
        assert absent not in words


@pytest.mark.parametrize(
    ("task", "options", "expected"),
    [
        (Task.GENERATE, {}, "--log-verbosity 4"),
        (Task.EMBED, {"pooling": "mean"}, "--pooling mean --embeddings"),
        (Task.RERANK, {"pooling": "rank"}, "--pooling rank --rerank"),
    ],
)
def test_the_task_decides_the_mode(task: Task, options: dict[str, object], expected: str) -> None:
    for build_number in (10434, 11434):
        words = line(model(task, **options), recorded(build_number))
        assert expected in words
        assert ("--embeddings" in words) == (task is Task.EMBED)
        assert ("--rerank" in words) == (task is Task.RERANK)


@pytest.mark.parametrize(
    ("mlock", "no_mmap", "expected", "before"),
    [
        (True, False, "--load-mode mmap+mlock", "--mlock"),
        (True, True, "--load-mode mlock", "--mlock --no-mmap"),
        (False, True, "--load-mode none", "--no-mmap"),
        (False, False, "", ""),
    ],
)
def test_locking_and_mapping_are_one_option_of_newer_builds(
    mlock: bool, no_mmap: bool, expected: str, before: str
) -> None:
    document = model(mlock=mlock, no_mmap=no_mmap)
    assert expected in line(document, recorded(10434))
    assert before in line(document, OLD)
    assert "--load-mode" not in line(document, OLD)
    assert build(document).lock_memory == mlock


def test_a_much_older_build_degrades_with_warnings_and_never_with_an_unknown_word() -> None:
    document = model(numa_policy="isolate", draft_model_path="d.gguf", draft_n=4, cache_ram_mib=512, load_mode="dio")
    command = build(document, OLD)
    words = " ".join(command.argv)
    assert flags(command.argv) <= OLD.flags
    assert "--flash-attn --" in words, "there the option takes no value"
    assert "--model-draft /models/d.gguf --draft-max 4" in words
    assert "--no-webui" in words
    warnings = " ".join(command.warnings)
    for name in ("--metrics", "numa_policy", "cache_ram_mib", "load_mode"):
        assert name in warnings
    assert "--flash-attn" not in line(model(flash_attention=False), OLD)


@pytest.mark.parametrize(
    ("task", "options", "flag"),
    [
        (Task.GENERATE, {"mmproj_path": "p.gguf"}, "--mmproj"),
        (Task.GENERATE, {"rope_scaling": "yarn"}, "--rope-scaling"),
        (Task.GENERATE, {"grammar_file": "g"}, "--grammar-file"),
        (Task.RERANK, {}, "--rerank"),
    ],
)
def test_what_would_change_the_model_is_refused_not_left_out(task: Task, options: dict[str, object], flag: str) -> None:
    with pytest.raises(SpecError, match=flag) as caught:
        build(model(task, **options), OLD)
    assert caught.value.code == "engine_option_unsupported"


def test_an_explicit_kind_of_drafting_is_kept_and_needs_no_draft_model() -> None:
    assert "--spec-type draft-mtp" in line(model(spec_type="draft-mtp", draft_n=2), recorded(11434))
    assert "--spec-type draft-eagle3" in line(model(spec_type="draft-eagle3", draft_model_path="d.gguf"))


def test_free_arguments_come_last_and_the_environment_is_passed() -> None:
    document = model().model_copy(update={"extra_args": ("--poll", "0"), "extra_env": {"A": "b"}})
    command = build(document, recorded(11434))
    assert command.argv[-2:] == ("--poll", "0")
    assert command.env == {"A": "b"}
    assert command.api_key_env == "LLAMA_API_KEY"


@pytest.mark.parametrize(
    ("word", "hint"),
    [("--pol", "Did you mean --poll"), ("--mlock", ""), ("--draft-max", ""), ("--poll=50", "word of its own")],
)
def test_a_free_argument_that_the_build_would_refuse_is_refused_here(word: str, hint: str) -> None:
    document = model().model_copy(update={"extra_args": (word, "-1")})
    with pytest.raises(SpecError, match=f"{word}.*{hint}") as caught:
        build(document, recorded(11434))
    assert caught.value.code == "engine_option_unsupported"


@pytest.mark.parametrize(
    "words",
    [
        ("--host", "0.0.0.0"),
        ("--port=1",),
        ("--api_key", "x"),
        ("-m", "/etc/passwd"),
        ("--alias", "x"),
        ("--models-dir", "/"),
        ("--tools", "all"),
        ("-hf", "x/y"),
        ("--slot-save-path", "/tmp"),
    ],
)
def test_no_free_argument_overrides_what_cortex_decides(words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        build(model().model_copy(update={"extra_args": words}))
    assert caught.value.code == "denied_argument"


@pytest.mark.parametrize("name", ["LLAMA_ARG_HOST", "llama_arg_port", "LLAMA_API_KEY", "LD_PRELOAD"])
def test_no_variable_overrides_what_cortex_decides(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(model().model_copy(update={"extra_env": {name: "x"}}))
    assert caught.value.code == "denied_argument"


@pytest.mark.parametrize(
    ("changes", "root", "code"),
    [
        ({"local_path": None}, "/models", "model_path_missing"),
        ({"local_path": "../x.gguf"}, "/models", "path_outside_models_root"),
        ({"local_path": "/etc/passwd"}, "/models", "path_outside_models_root"),
        ({}, None, "models_dir_missing"),
        ({"llamacpp": {"lora_adapters": [{"path": "a:b"}]}}, "/models", "lora_path_invalid"),
        ({"llamacpp": {"grammar_file": "../../x"}}, "/models", "path_outside_models_root"),
        ({"llamacpp": {"draft_model_path": "/x"}}, "/models", "path_outside_models_root"),
    ],
)
def test_a_model_without_a_usable_file_is_refused(changes: dict[str, Any], root: str | None, code: str) -> None:
    document = ModelDocumentV1.model_validate({**model().model_dump(), **changes})
    with pytest.raises(SpecError) as caught:
        llamacpp.ENGINE.build(BuildRequest(document, Program("x"), root))
    assert caught.value.code == code


def test_the_first_part_of_a_split_set_is_served_as_it_is() -> None:
    document = model().model_copy(update={"local_path": "big/m-00001-of-00003.gguf"})
    assert "--model /models/big/m-00001-of-00003.gguf" in line(document)
