from typing import Any

import pytest

from cortex_cli.arguments import find_key, find_model, model_body, parse_assignments
from cortex_cli.errors import CliError, ExitCode

MODELS: list[dict[str, Any]] = [
    {"id": "1", "name": "small", "served_model_name": "small", "aliases": ["tiny"]},
    {"id": "2", "name": "big", "served_model_name": "org/big", "aliases": []},
    {"id": "3", "name": "org/big", "served_model_name": "other"},
    {"id": "4", "name": "twin", "served_model_name": "twin-a"},
    {"id": "5", "name": "twin", "served_model_name": "twin-b"},
]
KEYS = [
    {"id": "1", "name": "alice", "prefix": "sk-a", "revoked_at": "2026-01-01T00:00:00Z"},
    {"id": "2", "name": "alice", "prefix": "sk-b", "revoked_at": None},
]


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("ngl=0", {"ngl": 0}),
        ("rope_freq_scale=0.5", {"rope_freq_scale": 0.5}),
        ("mlock=true", {"mlock": True}),
        ("ngl=null", {"ngl": None}),
        ("tensor_split=3,1", {"tensor_split": "3,1"}),
        ('extra_args=["--seed","1"]', {"extra_args": ["--seed", "1"]}),
        ("chat_template=a=b", {"chat_template": "a=b"}),
        ('name="123"', {"name": "123"}),
        ("chat_template=", {"chat_template": ""}),
    ],
)
def test_set_takes_json_or_text(assignment: str, expected: dict[str, object]) -> None:
    assert parse_assignments([assignment]) == expected


@pytest.mark.parametrize("assignment", ["ngl", "=3", " =3"])
def test_set_without_a_key_is_wrong_usage(assignment: str) -> None:
    with pytest.raises(CliError) as caught:
        parse_assignments([assignment])
    assert caught.value.exit_code is ExitCode.USAGE


def test_the_body_is_flat_holds_only_what_was_given_and_set_wins() -> None:
    options = {"name": "m", "engine_type": "llamacpp", "local_path": "a.gguf", "repo_id": None, "ngl": 0}
    assert model_body(options, ["context_size=4096", "ngl=10"]) == {
        "name": "m",
        "engine_type": "llamacpp",
        "local_path": "a.gguf",
        "ngl": 10,
        "context_size": 4096,
    }


@pytest.mark.parametrize(
    ("wanted", "model_id"),
    [("2", "2"), ("small", "1"), ("tiny", "1"), ("org/big", "3"), ("other", "3"), ("twin-b", "5"), ("4", "4")],
)
def test_a_model_is_found_by_id_then_name_then_served_name(wanted: str, model_id: str) -> None:
    assert find_model(MODELS, wanted)["id"] == model_id


@pytest.mark.parametrize(("wanted", "code"), [("nope", "model_not_found"), ("twin", "ambiguous_model")])
def test_a_model_that_is_not_clear_is_refused(wanted: str, code: str) -> None:
    with pytest.raises(CliError) as caught:
        find_model(MODELS, wanted)
    assert caught.value.code == code


@pytest.mark.parametrize(("wanted", "key_id"), [("alice", "2"), ("sk-b", "2"), ("1", "1")])
def test_a_key_is_found_by_id_or_by_what_is_still_valid(wanted: str, key_id: str) -> None:
    assert find_key(KEYS, wanted)["id"] == key_id


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(CliError, match="no key bob"):
        find_key(KEYS, "bob")
