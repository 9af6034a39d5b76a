"""Where the fields of a model come from: a file, options, `--set`, an editor."""

from pathlib import Path
from typing import Any

import pytest

from cortex_cli.commands.model import gpus
from cortex_cli.commands.model_change import editable, in_editor
from cortex_cli.commands.models import read_fields, read_object, show_warnings
from cortex_cli.errors import CliError, ExitCode


def test_options_win_over_the_file_and_set_wins_over_both(tmp_path: Path) -> None:
    file = tmp_path / "model.toml"
    file.write_text('name = "a"\nreplicas = 1\nthreads = 2\n[request_defaults]\ntemperature = 0.5\n')
    found = read_fields(file, ["threads=4"], {"replicas": 3, "threads": 3, "aliases": [], "task": None})
    assert found == {"name": "a", "replicas": 3, "threads": 4, "request_defaults": {"temperature": 0.5}}


@pytest.mark.parametrize("text", ["", "[1]", "{", "3", "{}"])
def test_a_file_without_fields_is_wrong_usage(tmp_path: Path, text: str) -> None:
    file = tmp_path / "model.json"
    file.write_text(text)
    with pytest.raises(CliError) as caught:
        read_object(file)
    assert caught.value.exit_code is ExitCode.USAGE
    with pytest.raises(CliError, match="cannot be read"):
        read_object(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "expected"), [(None, None), ("auto", "auto"), ("0", [0]), ("0,2", [0, 2]), ("0, 2", [0, 2])]
)
def test_gpus_are_numbers_or_auto(text: str | None, expected: Any) -> None:
    assert gpus(text) == expected


def test_gpus_that_are_no_numbers_are_wrong_usage() -> None:
    with pytest.raises(CliError, match="no list"):
        gpus("all")


def test_an_editor_sees_what_a_patch_may_hold_and_gives_back_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = [{"name": name, "write_only": name == "hf_token"} for name in ("name", "threads", "ngl", "hf_token")]
    capabilities = {"engines": [{"engine_type": "llamacpp", "fields": fields}]}
    model = {"engine_type": "llamacpp", "id": "1", "state": "running", "name": "m", "threads": 2, "ngl": None}
    assert editable(model, capabilities) == {"name": "m", "threads": 2}
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho \'{"name": "n"}\' > "$1"\n')
    editor.chmod(0o755)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", str(editor))
    assert in_editor({"name": "m"}, "m") == {"name": "n"}
    for command, message in (("false", "ended with 1"), ("/nothing/here", "cannot be started")):
        monkeypatch.setenv("EDITOR", command)
        with pytest.raises(CliError, match=message):
            in_editor({"name": "m"}, "m")


def test_warnings_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    show_warnings({"warnings": [{"field": "a", "code": "gone", "message": "no more"}, {"field": "", "message": "b"}]})
    assert capsys.readouterr().err == "! a: no more\n! b\n"
