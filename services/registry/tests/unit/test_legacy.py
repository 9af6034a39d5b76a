"""Fields of the first Cortex: each is translated, or named in a warning and left out."""

from typing import Any

import pytest

from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_kit.errors import DomainError
from cortex_registry.domain.legacy import IGNORED, OLD_FIELDS, RENAMED, translate
from cortex_registry.domain.specification import CommonFields
from cortex_registry.domain.submission import parse_submission

VLLM: dict[str, Any] = {"name": "Big", "repo_id": "org/big"}
LLAMA: dict[str, Any] = {"name": "Small", "engine_type": "llamacpp", "local_path": "a.gguf"}
COMMON_OF_OLD = """name served_model_name repo_id local_path mode task engine_type engine_image engine_version engine_digest
selected_gpus request_defaults_json request_timeout_sec stream_timeout_sec engine_startup_args_json
engine_startup_env_json startup_timeout_sec temperature top_k top_p repetition_penalty frequency_penalty
presence_penalty hf_token state archived port container_name created_at updated_at custom_request_json"""
VLLM_OF_OLD = """dtype tp_size pipeline_parallel_size gpu_memory_utilization max_model_len kv_cache_dtype
max_num_batched_tokens max_num_seqs quantization block_size swap_space_gb cpu_offload_gb enforce_eager
trust_remote_code enable_prefix_caching prefix_caching_hash_algo enable_chunked_prefill cuda_graph_sizes device
tokenizer hf_config_path attention_backend disable_log_requests disable_log_stats vllm_v1_enabled gguf_weight_format
entrypoint_override debug_logging trace_mode engine_request_timeout max_log_len"""
LLAMACPP_OF_OLD = """ngl tensor_split batch_size ubatch_size threads context_size parallel_slots rope_freq_base
rope_freq_scale flash_attention mlock no_mmap numa_policy split_mode cache_type_k cache_type_v cont_batching
draft_model_path draft_n draft_p_min verbose_logging check_tensors skip_warmup chat_template chat_template_file
jinja_enabled defrag_thold lora_adapters_json lora_init_without_apply grammar_file enable_embeddings system_prompt"""


@pytest.mark.parametrize(
    ("names", "options"),
    [(COMMON_OF_OLD, None), (VLLM_OF_OLD, VllmOptions), (LLAMACPP_OF_OLD, LlamaCppOptions)],
)
def test_every_field_of_the_first_cortex_is_known_under_its_name(names: str, options: Any) -> None:
    known = OLD_FIELDS | CommonFields.model_fields.keys() | {"engine_type"}
    known |= options.model_fields.keys() if options is not None else set()
    assert [name for name in names.split() if name not in known] == []


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        (VLLM | {"request_timeout_sec": 30}, "request_timeout_s", 30.0),
        (VLLM | {"stream_timeout_sec": 31}, "stream_timeout_s", 31.0),
        (VLLM | {"startup_timeout_sec": 900}, "startup_timeout_s", 900),
        (VLLM | {"selected_gpus": [0, 2]}, "placement", (0, 2)),
        (VLLM | {"selected_gpus": "[0, 2]"}, "placement", (0, 2)),
        (VLLM | {"selected_gpus": "[]"}, "placement", "auto"),
        (VLLM | {"selected_gpus": ""}, "placement", "auto"),
        (VLLM | {"request_defaults_json": '{"top_p": 0.9}'}, "request_defaults", {"top_p": 0.9}),
        (VLLM | {"custom_request_json": {"min_p": 0.1}}, "request_defaults", {"min_p": 0.1}),
        (VLLM | {"temperature": 0.2, "top_k": 5}, "request_defaults", {"temperature": 0.2, "top_k": 5}),
        (VLLM | {"temperature": 0.2, "request_defaults": {"temperature": 1}}, "request_defaults", {"temperature": 1}),
        (VLLM | {"repetition_penalty": 1.1}, "request_defaults", {"repetition_penalty": 1.1}),
        (LLAMA | {"repetition_penalty": 1.1}, "request_defaults", {"repeat_penalty": 1.1}),
        (
            VLLM
            | {
                "engine_startup_args_json": [
                    {"flag": "--seed", "type": "int", "value": 1},
                    {"flag": "enable-x", "type": "bool", "value": True},
                    {"flag": "--off", "type": "flag", "value": "false"},
                    {"flag": "--list", "type": "string_list", "value": ["a", "b"]},
                ]
            },
            "extra_args",
            ("--seed", "1", "--enable-x", "--list", "a", "b"),
        ),
        (VLLM | {"engine_startup_args_json": '["--seed", "1"]'}, "extra_args", ("--seed", "1")),
        (VLLM | {"engine_startup_env_json": '[{"key": "A", "value": 1}]'}, "extra_env", {"A": "1"}),
        (VLLM | {"engine_startup_env_json": {"A": "b"}}, "extra_env", {"A": "b"}),
        (VLLM | {"debug_logging": True}, "verbose_logging", True),
        (VLLM | {"disable_log_requests": False}, "enable_log_requests", True),
        (VLLM | {"cuda_graph_sizes": "1,2 4"}, "cuda_graph_sizes", (1, 2, 4)),
        (VLLM | {"prefix_caching_hash_algo": "sha256_cbor_64bit"}, "prefix_caching_hash_algo", "sha256_cbor"),
        (VLLM | {"attention_backend": "XFORMERS"}, "attention_backend", None),
        (VLLM | {"task": "embeddings"}, "task", "embed"),
        (LLAMA | {"enable_embeddings": True}, "task", "embed"),
        (LLAMA | {"enable_embeddings": False}, "task", "generate"),
        (LLAMA | {"lora_adapters_json": '["l.gguf", {"path": "m.gguf", "scale": 0.5}]'}, None, ("l.gguf", "m.gguf")),
        (VLLM | {"mode": "online", "local_path": ""}, "repo_id", "org/big"),
        (VLLM | {"mode": "offline", "local_path": "big"}, "local_path", "big"),
        (VLLM | {"mode": "offline", "local_path": "big"}, "repo_id", None),
    ],
)
def test_an_old_field_becomes_todays(fields: dict[str, Any], field: str | None, value: Any) -> None:
    specification = parse_submission(fields).specification
    if field is None:
        assert tuple(adapter.path for adapter in specification.lora_adapters) == value  # type: ignore[union-attr]
    else:
        assert getattr(specification, field) == value


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_a_field_without_use_is_named_and_never_passed_on(name: str) -> None:
    submission = parse_submission(VLLM | {name: "anything"})
    assert [(warning.field, warning.code) for warning in submission.warnings] == [(name, IGNORED[name][0])]
    assert submission.specification == parse_submission(VLLM).specification
    assert "anything" not in submission.warnings[0].message


@pytest.mark.parametrize("name", sorted(OLD_FIELDS))
def test_null_in_an_old_field_says_nothing(name: str) -> None:
    assert translate(VLLM | {name: None}).fields == VLLM
    assert translate(VLLM | {name: None}).warnings == ()


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_todays_field_wins_over_the_old_one(old: str, new: str) -> None:
    translation = translate({old: 1, new: 2})
    assert translation.fields == {new: 2}
    assert [warning.code for warning in translation.warnings] == ["superseded"]


def test_the_other_engines_fields_may_be_null_but_not_set() -> None:
    assert parse_submission(VLLM | {"ngl": None, "split_mode": None}).warnings == ()
    with pytest.raises(DomainError) as caught:
        parse_submission(VLLM | {"ngl": 1})
    assert "ngl" in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("selected_gpus", "{"),
        ("selected_gpus", 3),
        ("request_defaults_json", "[1]"),
        ("engine_startup_args_json", [{"value": 1}]),
        ("engine_startup_args_json", [3]),
        ("engine_startup_env_json", [{"value": 1}]),
        ("lora_adapters_json", 1),
        ("disable_log_requests", "perhaps"),
        ("mode", "sideways"),
        ("cuda_graph_sizes", "a"),
        ("request_defaults_json", "[" * 100_000),
    ],
)
def test_an_old_field_that_cannot_be_read_is_named(name: str, value: Any) -> None:
    with pytest.raises(DomainError) as caught:
        translate(VLLM | {name: value})
    assert (caught.value.status, caught.value.code) == (422, "invalid_request")
    assert name in caught.value.message


def test_old_arguments_meet_the_deny_list_like_new_ones() -> None:
    fields = translate(VLLM | {"engine_startup_args_json": [{"flag": "--api-key", "type": "string", "value": "x"}]})
    assert fields.fields["extra_args"] == ["--api-key", "x"]


def test_a_patch_of_one_sampling_value_keeps_the_others() -> None:
    translation = translate({"temperature": 0.1}, defaults={"temperature": 1, "top_p": 0.5})
    assert translation.fields == {"request_defaults": {"temperature": 0.1, "top_p": 0.5}}
