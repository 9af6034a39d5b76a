"""What people read of a GGUF file."""

from pathlib import Path

from cortex_cli.commands.gguf_facts import facts
from cortex_gguf_inspector.inspect import inspect_file
from cortex_testing.gguf import fixtures


def test_a_mixture_of_experts_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "oss.gguf"
    fixtures.gpt_oss_20b().write(path)
    shown = facts(inspect_file(path).gguf)
    assert shown["parameters"] == "19.76 B, 3.03 B used for a token", "20.91 B but for the small vocabulary"
    assert shown["experts"] == "32, 4 used for a token"
    assert shown["attention"] == "64 heads, 8 for keys and values, sliding window of 128"
    assert "MXFP4" in str(shown["tensors"])
    assert shown["chat template"] == "system, tools, reasoning"
