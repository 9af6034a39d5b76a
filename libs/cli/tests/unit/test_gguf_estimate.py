"""Memory estimates on the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cortex_cli.commands.gguf import app
from cortex_cli.commands.gguf_estimate import parse_devices, parse_size
from cortex_cli.errors import CliError
from cortex_cli.output import size
from cortex_testing.gguf import fixtures


@pytest.mark.parametrize(
    ("text", "size"), [("24GiB", 24 << 30), ("24G", 24 << 30), ("1.5 MiB", 3 << 19), ("700", 700), ("2tb", 2 << 40)]
)
def test_sizes_are_powers_of_1024(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1G", "24 apples"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(CliError):
        parse_size(text)


def test_devices_have_names():
    first, second = parse_devices(["A100=40GiB", "24GiB"])
    assert (first.name, second.name, second.memory_free) == ("A100", "GPU1", 24 << 30)
    assert size(3 << 29) == "1.5 GiB"


def test_an_estimate_and_a_recommendation_are_printed(tmp_path: Path):
    path = fixtures.llama().write(tmp_path / "x.gguf")
    run = CliRunner()
    result = run.invoke(app, ["estimate", str(path), "--ctx", "1024", "--device", "GPU0=4GiB", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["known"]
    assert [memory["device"] for memory in found["devices"]] == ["CPU", "GPU0"]
    for command in ("estimate", "recommend"):
        result = run.invoke(app, [command, str(path), "--device", "GPU0=4GiB", "--host-memory", "8GiB"])
        assert result.exit_code == 0, result.output
        assert "largest context" in result.output or command == "recommend"
    wrong = run.invoke(app, ["estimate", str(path), "--ctk", "q9"])
    assert isinstance(wrong.exception, CliError)
