"""What an administrator may say of a model, and what it becomes."""

from typing import Any

import pytest

from cortex_contracts.base import ModelId
from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_contracts.enums import DesiredState
from cortex_kit.errors import DomainError
from cortex_registry.domain.model import (
    MAX_DOCUMENT_BYTES,
    changed_document,
    changed_fields,
    check,
    describe,
    merge,
    new_document,
)
from cortex_registry.domain.specification import parse_specification

LLAMA: dict[str, Any] = {"name": "Smol LM", "engine_type": "llamacpp", "local_path": "a/b.gguf"}
VLLM: dict[str, Any] = {"name": "Big", "repo_id": "org/big"}
ID = ModelId("01890000-0000-7000-8000-000000000001")


def refusal(fields: dict[str, Any]) -> DomainError:
    with pytest.raises(DomainError) as caught:
        check(parse_specification(fields), "/models")
    return caught.value


def test_the_plans_defaults_are_the_defaults() -> None:
    options = parse_specification(LLAMA).options()
    assert isinstance(options, LlamaCppOptions)
    assert (options.ngl, options.batch_size, options.context_size) == (None, 512, 8192)
    assert (options.flash_attention, options.mlock, options.no_mmap) == (True, False, False)
    assert parse_specification(LLAMA).served_name == "smol-lm"


def test_an_explicit_zero_of_gpu_layers_stays_zero() -> None:
    options = parse_specification(LLAMA | {"ngl": 0}).options()
    assert isinstance(options, LlamaCppOptions)
    assert options.ngl == 0


def test_vllm_is_the_default_engine() -> None:
    assert parse_specification(VLLM).options() == VllmOptions()


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        (LLAMA | {"tp_size": 2}, "tp_size", "an option of vllm, not of llamacpp"),
        (VLLM | {"ngl": 2}, "ngl", "an option of llamacpp, not of vllm"),
        (VLLM | {"nonsense": 2}, "nonsense", "no such field"),
        (VLLM | {"engine_type": "tgi"}, "engine_type", "must be vllm or llamacpp"),
        (VLLM | {"engine_type": None}, "engine_type", "must be vllm or llamacpp"),
        ({"name": "x"}, "repo_id", "exactly one of repo_id and local_path"),
        (VLLM | {"local_path": "x"}, "repo_id", "exactly one"),
        (VLLM | {"repo_id": None, "local_path": "x.gguf"}, "", "GGUF"),
        ({"name": "x", "engine_type": "llamacpp"}, "local_path", "give local_path"),
        (LLAMA | {"repo_id": "a/b"}, "local_path", "give local_path"),
        (VLLM | {"repo_id": "../etc"}, "repo_id", "pattern"),
        (VLLM | {"repo_id": "a/b/c"}, "repo_id", "pattern"),
        (VLLM | {"repo_id": "a/b..c"}, "repo_id", "must not contain"),
        (VLLM | {"repo_id": "-x/y"}, "repo_id", "pattern"),
        (LLAMA | {"context_size": -1}, "context_size", "greater"),
        (LLAMA | {"tensor_split": "3;1"}, "tensor_split", "pattern"),
        (LLAMA | {"split_mode": "diagonal"}, "split_mode", "Input should be"),
        (LLAMA | {"rope_freq_base": float("inf")}, "rope_freq_base", "finite"),
        (LLAMA | {"flash_attention": False, "cache_type_v": "q8_0"}, "cache_type_v", "needs flash_attention"),
        (VLLM | {"tokenizer": "--host"}, "tokenizer", "dash"),
        (VLLM | {"kv_cache_dtype": "fp8\n"}, "kv_cache_dtype", "control"),
        (VLLM | {"engine_image": "evil image"}, "engine_image", "pattern"),
        (VLLM | {"served_model_name": "a/../b"}, "served_model_name", "pattern"),
        (VLLM | {"served_model_name": ID}, "served_model_name", "like an id"),
        (VLLM | {"aliases": ["big"]}, "aliases", "differ"),
        (VLLM | {"name": "   "}, "name", "at least 1"),
        (VLLM | {"name": "日本"}, "served_model_name", "give one"),
        (VLLM | {"name": "x\x00"}, "name", "NUL"),
        (VLLM | {"request_defaults": {"stop": ["\ud800"]}}, "request_defaults", "surrogate"),
        (VLLM | {"replicas": -1}, "replicas", "greater"),
        (VLLM | {"placement": [-1]}, "placement", "greater"),
        (VLLM | {"hf_token": ""}, "hf_token", "at least 1"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], field: str, message: str) -> None:
    error = refusal(fields)
    assert (error.code, error.status) == ("invalid_request", 422)
    errors: Any = error.details["errors"]
    assert any(one["field"].split(".")[0] == field and message in one["message"] for one in errors), errors


def test_a_refusal_never_repeats_a_secret() -> None:
    error = refusal(VLLM | {"hf_token": ["hf_secret"], "nonsense": "hf_secret"})
    assert "hf_secret" not in f"{error.message}{error.details}"


@pytest.mark.parametrize("name", ["openai/gpt-oss-120b", "a", "Qwen2.5:7b", "a.b_c-d"])
def test_usual_names_are_allowed(name: str) -> None:
    assert parse_specification(VLLM | {"served_model_name": name}).served_name == name


def test_every_path_is_made_relative_to_the_models_root() -> None:
    fields = LLAMA | {
        "local_path": "/models/a.gguf",
        "mmproj_path": "/models/p.gguf",
        "lora_adapters": [{"path": "/models/l.gguf", "scale": 0.5}],
    }
    document = new_document(check(parse_specification(fields), "/models"), model_id=ID, hf_token_sealed=None)
    assert document.local_path == "a.gguf"
    assert document.llamacpp is not None
    assert document.llamacpp.mmproj_path == "p.gguf"
    assert [adapter.path for adapter in document.llamacpp.lora_adapters] == ["l.gguf"]


@pytest.mark.parametrize("field", ["local_path", "mmproj_path", "draft_model_path", "chat_template_file"])
def test_no_path_leaves_the_models_root(field: str) -> None:
    error = refusal(LLAMA | {field: "../../etc/passwd"})
    assert error.code == "path_outside_models_root"
    lora = refusal(LLAMA | {"lora_adapters": [{"path": "/etc/passwd"}]})
    assert lora.code == "path_outside_models_root"


def test_a_description_is_read_back_as_it_was_given() -> None:
    fields = LLAMA | {"threads": 2, "lora_adapters": [{"path": "l.gguf", "scale": 0.5}], "extra_env": {"A": "b"}}
    document = new_document(parse_specification(fields), model_id=ID, hf_token_sealed="sealed")
    again = changed_document(document, parse_specification(merge(document, {})), hf_token_sealed="sealed")
    assert again == document.model_copy(update={"aggregateversion": 2})
    assert changed_fields(document, again) == ()
    assert "hf_token_sealed" not in describe(document)


def test_a_patch_replaces_fields_whole_and_null_puts_defaults_back() -> None:
    fields = LLAMA | {"threads": 2, "context_size": 16, "extra_env": {"A": "b"}}
    document = new_document(parse_specification(fields), model_id=ID, hf_token_sealed=None)
    document = document.model_copy(update={"desired_state": DesiredState.RUNNING, "restart_generation": 3})
    patch: dict[str, Any] = {"threads": None, "context_size": None, "extra_env": {"C": "d"}, "replicas": 2}
    after = changed_document(document, parse_specification(merge(document, patch)), hf_token_sealed="x")
    assert after.llamacpp is not None
    assert (after.llamacpp.threads, after.llamacpp.context_size, after.extra_env) == (None, 8192, {"C": "d"})
    assert (after.desired_state, after.restart_generation, after.aggregateversion) == ("running", 3, 2)
    assert changed_fields(document, after) == ("context_size", "extra_env", "hf_token", "replicas", "threads")


def test_the_engine_of_a_model_cannot_change() -> None:
    document = new_document(parse_specification(LLAMA), model_id=ID, hf_token_sealed=None)
    with pytest.raises(DomainError, match="engine_type cannot change"):
        merge(document, {"engine_type": "vllm"})


def test_a_document_that_no_bucket_could_hold_is_refused() -> None:
    fields = LLAMA | {"chat_template": "x" * MAX_DOCUMENT_BYTES}
    with pytest.raises(DomainError) as caught:
        new_document(parse_specification(fields), model_id=ID, hf_token_sealed=None)
    assert caught.value.code == "model_too_large"
