"""Warnings, fallbacks that lead back, recipes and files: what goes out comes in again."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ExternalEndpoint
from cortex_contracts.enums import EngineType
from cortex_kit.errors import DomainError
from cortex_registry.domain.advice import advise, refuse_fallback_cycle
from cortex_registry.domain.capabilities import FieldInfo, fields_of
from cortex_registry.domain.devices import hardware_of
from cortex_registry.domain.model import Model, check, describe, new_document
from cortex_registry.domain.portable import Conflict, Fitting, Outcome, export, take_apart
from cortex_registry.domain.recipes import LEFT_OUT, Recipe, checked_fields, fields_of_model, model_fields
from cortex_registry.domain.revisions import diff, rolled_back
from cortex_registry.domain.specification import parse_specification
from cortex_registry.domain.submission import parse_submission

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VLLM: dict[str, Any] = {"name": "Big", "repo_id": "org/big"}


def model(model_id: str = "m", *, token: str | None = None, **fields: Any) -> Model:
    specification = check(parse_specification(VLLM | fields), "/models")
    document = new_document(specification, model_id=ModelId(model_id), hf_token_sealed=token)
    return Model(document, NOW, NOW, NOW)


def codes(**fields: Any) -> set[tuple[str, str]]:
    return {(one.field, one.code) for one in advise(parse_specification(VLLM | fields), {"there"})}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"idle_ttl_s": 60}, {("idle_ttl_s", "no_effect")}),
        ({"idle_ttl_s": 60, "lifecycle": "on_demand"}, set()),
        ({"fallbacks": ["there", "gone"]}, {("fallbacks", "unknown_model")}),
        ({"request_defaults": {"temperature": 1, "repetition_penalty": 1.1}}, set()),
        ({"request_defaults": {"mirostat": 1}}, {("request_defaults.mirostat", "unknown_request_default")}),
        ({"request_defaults": {"model": "x"}}, {("request_defaults.model", "no_effect")}),
        ({"task": "embed", "request_defaults": {"dimensions": 64}}, set()),
        (
            {"task": "embed", "request_defaults": {"temperature": 1}},
            {("request_defaults.temperature", "unknown_request_default")},
        ),
    ],
)
def test_what_has_no_effect_is_said(fields: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    assert codes(**fields) == expected


@pytest.mark.parametrize(
    ("fallbacks", "others", "way"),
    [
        (["a"], {}, "a"),
        (["b"], {"b": ["a"]}, "b -> a"),
        (["b", "c"], {"b": ["d"], "c": ["e"], "e": ["alias"]}, "c -> e -> alias"),
        (["b"], {"b": ["c"], "c": ["b"]}, None),
        (["b", "c"], {"b": ["d"], "c": ["d"], "d": []}, None),
        (["gone"], {}, None),
    ],
)
def test_fallbacks_must_not_lead_back(fallbacks: list[str], others: dict[str, list[str]], way: str | None) -> None:
    if way is None:
        refuse_fallback_cycle(("a", "alias"), fallbacks, others)
        return
    with pytest.raises(DomainError, match=way) as caught:
        refuse_fallback_cycle(("a", "alias"), fallbacks, others)
    assert (caught.value.status, caught.value.code) == (422, "fallback_cycle")


def test_a_clash_of_a_thousand_fallbacks_is_judged_at_once() -> None:
    others = {f"m{number}": [f"m{other}" for other in range(16)] for number in range(1000)}
    refuse_fallback_cycle(("a",), ["m0"], others)


_VALUES: dict[str, tuple[Any, ...]] = {"string": ("abc",), "number": (0.25, 1.0), "boolean": (True, False)}
_SPECIAL: dict[str, tuple[Any, ...]] = {
    "placement": ("auto", [0], [0, 1]),
    "extra_args": ([], ["--seed", "1"]),
    "extra_env": ({}, {"A": "b"}),
    "request_defaults": ({}, {"temperature": 0.5, "stop": ["a"]}),
    "fallbacks": ([], ["x", "y"]),
    "lora_adapters": ([], [{"path": "l.gguf", "scale": 0.5}]),
    "lora_modules": ([], [{"name": "l", "repo_id": "a/l"}, {"name": "m", "path": "m"}]),
    "cuda_graph_sizes": ([], [1, 2]),
    "tensor_split": ("3,1",),
    "override_tensor": ("a=CPU",),
    "override_kv": ("a.b=int:1",),
    "flash_attention": (True,),
}
_NEVER = {"name", "served_model_name", "aliases", "repo_id", "local_path", "hf_token", "tokenizer", "hf_config_path"}
_EITHER = {"chat_template_file", "draft_repo_id"}


def _examples(field: FieldInfo) -> tuple[Any, ...]:
    """Values of a field, most of them not its default."""
    if field.name in _SPECIAL:
        return _SPECIAL[field.name]
    if field.choices:
        return field.choices
    if field.type == "object":
        return ({}, {"a": [1, None, {"b": "c"}]})
    if field.type == "integer":
        return (int(field.minimum or 0), int(min(field.maximum or 8, 8)))
    return _VALUES[field.type]


_EXAMPLES = {
    engine: {field.name: _examples(field) for field in fields_of(engine) if field.name not in _NEVER | _EITHER}
    for engine in EngineType
}


def _fixed(engine: EngineType) -> dict[str, Any]:
    source = {"local_path": "a.gguf"} if engine is EngineType.LLAMACPP else {"repo_id": "org/big"}
    return {"name": "Model", "engine_type": engine.value, **source}


@st.composite
def descriptions(draw: st.DrawFn, engine: EngineType | None = None) -> dict[str, Any]:
    """A description with some fields set."""
    chosen = draw(st.sampled_from(EngineType)) if engine is None else engine
    examples = _EXAMPLES[chosen]
    names = draw(st.sets(st.sampled_from(sorted(examples)), max_size=12))
    return {**_fixed(chosen), **{name: draw(st.sampled_from(examples[name])) for name in sorted(names)}}


def with_all_fields(engine: EngineType) -> dict[str, Any]:
    """Every field at its last example."""
    return {**_fixed(engine), **{name: values[-1] for name, values in _EXAMPLES[engine].items()}}


def _model(fields: dict[str, Any]) -> Model:
    specification = check(parse_submission(fields).specification, "/models")
    return Model(new_document(specification, model_id=ModelId("m"), hf_token_sealed="sealed"), NOW, NOW, NOW)


@given(descriptions())
@example(with_all_fields(EngineType.VLLM))
@example(with_all_fields(EngineType.LLAMACPP))
@settings(max_examples=40, deadline=None)
def test_a_model_made_from_a_models_recipe_equals_it_but_for_names_and_secrets(fields: dict[str, Any]) -> None:
    source = _model(fields | {"aliases": ["x1"]})
    kept, warnings = checked_fields(fields_of_model(source.document), "/models")
    assert warnings == ()
    assert kept == {name: value for name, value in describe(source.document).items() if name not in LEFT_OUT}
    recipe = Recipe("r", 1, "r", "", source.document.engine_type, source.document.task, kept, "a", NOW, NOW)
    made = _model(model_fields(recipe, {"name": "Other"}))
    changed = {"name": "Model", "served_model_name": "model", "aliases": ("x1",)}
    assert made.document.model_copy(update=changed) == source.document


@given(descriptions())
@example(with_all_fields(EngineType.VLLM))
@example(with_all_fields(EngineType.LLAMACPP))
@settings(max_examples=40, deadline=None)
def test_an_exported_model_comes_in_again_as_it_was(fields: dict[str, Any]) -> None:
    source = _model(fields | {"aliases": ["x1"]})
    entry = export(source)
    assert entry["missing_secrets"] == ["hf_token"]
    assert "sealed" not in str(entry)
    again = _model(take_apart(entry).fields)
    assert again.document == source.document


@given(descriptions(EngineType.VLLM), descriptions(EngineType.VLLM))
@settings(max_examples=20, deadline=None)
def test_a_rollback_leaves_no_difference(first: dict[str, Any], second: dict[str, Any]) -> None:
    old, new = _model(first).document, _model(second).document
    back = rolled_back(new, old)
    assert diff(old, back) == ()
    assert back.aggregateversion == new.aggregateversion + 1
    assert [one.field for one in diff(new, back)] == [one.field for one in diff(old, new)]


def fit(conflict: str, present: list[Model], *incoming: dict[str, Any]) -> list[Any]:
    fitting = Fitting(present, Conflict(conflict))
    return [fitting.fit(parse_specification(VLLM | fields)) for fields in incoming]


def test_what_becomes_of_a_model_whose_name_is_taken() -> None:
    present = [model(aliases=["b"])]
    taken: dict[str, Any] = {"name": "Big", "aliases": ["c"]}
    assert fit("error", present, taken)[0].outcome is Outcome.FAILED
    assert fit("skip", present, taken)[0].outcome is Outcome.SKIPPED
    (renamed,) = fit("rename", present, {"name": "Big", "aliases": ["b", "c"]})
    assert (renamed.outcome, renamed.specification.served_name, renamed.specification.aliases) == (
        Outcome.RENAMED,
        "big-2",
        ("c",),
    )
    assert renamed.specification.name == "Big (2)"
    (replaced,) = fit("replace", present, taken)
    assert (replaced.outcome, replaced.target) == (Outcome.REPLACED, present[0])


def test_names_inside_one_file_clash_too() -> None:
    same: dict[str, Any] = {"name": "Big"}
    assert [one.outcome for one in fit("error", [], same, same)] == [Outcome.CREATED, Outcome.FAILED]
    assert [one.specification.served_name for one in fit("rename", [], same, same, same)] == ["big", "big-2", "big-3"]
    assert [one.outcome for one in fit("replace", [], same, same)] == [Outcome.CREATED, Outcome.FAILED]
    freed = fit("replace", [model(aliases=["b"])], {"name": "Big"}, {"name": "b"})
    assert [one.outcome for one in freed] == [Outcome.REPLACED, Outcome.CREATED]


def test_one_model_never_replaces_two_or_one_of_another_kind() -> None:
    two = [model("1"), model("2", name="Other")]
    assert fit("replace", two, {"name": "Big", "aliases": ["other"]})[0].outcome is Outcome.FAILED
    llama = model(engine_type="llamacpp", repo_id=None, local_path="a.gguf")
    assert fit("replace", [llama], {"name": "Big"})[0].outcome is Outcome.FAILED
    document = model().document.model_copy(update={"external": (ExternalEndpoint(url="http://a"),)})
    external = Model(document, NOW, NOW, NOW)
    assert fit("replace", [external], {"name": "Big"})[0].outcome is Outcome.FAILED


def test_a_renamed_model_keeps_to_the_length_of_names() -> None:
    (renamed,) = fit("rename", [model(name="x" * 128)], {"name": "x" * 128})
    assert renamed.specification.served_name == "x" * 126 + "-2"
    assert len(renamed.specification.name) == 128


def test_without_a_known_host_an_estimate_has_no_devices() -> None:
    assert hardware_of([]).devices == ()
