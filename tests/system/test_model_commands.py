"""`cortex model` and `cortex recipe` on a whole Cortex with a real engine."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cortex_testing.stack import CORTEX, DEMO, Stack, eventually

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def read(stack: Stack, *arguments: str) -> Any:
    return json.loads(stack.cli(*arguments, "--json"))


def test_a_model_is_tried_out_changed_and_brought_back(stack: Stack, tmp_path: Path) -> None:
    eventually(lambda: stack.model()["state"] == "running", timeout=120)
    found = read(stack, "model", "dry-run", DEMO, "--set", "context_size=16384")
    words = found["command"]["argv"]
    assert words[words.index("--ctx-size") + 1] == "16384"
    assert "***" in found["command"]["env"].values()
    assert found["estimate"]["known"] is True
    assert found["estimate"]["context_size"] == 16384
    assert found["placement"]["fits"] is True
    shown = stack.cli("model", "dry-run", DEMO, "--set", "context_size=16384")
    assert "--ctx-size 16384" in shown
    assert "weights" in shown
    assert stack.model()["context_size"] != 16384

    assert read(stack, "model", "test", DEMO, "--prompt", "Say hello.")["ok"] is True
    assert "ready: running" in stack.cli("model", "readiness", DEMO)
    assert [one["served_model_name"] for one in read(stack, "model", "load")] == [DEMO]

    before = stack.model()["version"]
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i \'s/"fallbacks"/"aliases": ["edited"], "fallbacks"/\' "$1"\n')
    editor.chmod(0o755)
    stack.cli("model", "patch", DEMO, "--set", "temperature=0.25")
    stack.environment["EDITOR"] = str(editor)
    stack.cli("model", "edit", DEMO)
    assert (stack.model()["aliases"], stack.model()["request_defaults"]) == (["edited"], {"temperature": 0.25})
    compared = read(stack, "model", "diff", "edited", str(before))
    assert [one["field"] for one in compared["items"]] == ["aliases", "request_defaults"]
    stack.cli("model", "rollback", DEMO, str(before))
    after = stack.model()
    assert (after["aliases"], after["request_defaults"], after["desired_state"]) == ([], {}, "running")
    actions = [one["action"] for one in read(stack, "model", "revisions", DEMO)]
    assert actions[:3] == ["model.rollback", "model.update", "model.update"]
    assert "context_size" in stack.cli("model", "fields", "llamacpp", "--group", "basic")


def test_a_live_log_shows_what_the_engine_writes(stack: Stack) -> None:
    eventually(lambda: stack.model()["state"] == "running", timeout=120)
    following = subprocess.Popen(
        [CORTEX, "model", "logs", DEMO, "--follow", "--tail", "1"],
        env=stack.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert following.stdout is not None
        assert following.stdout.readline().strip()
        stack.ask()
        assert any("slot" in following.stdout.readline() for _ in range(50))
    finally:
        following.terminate()
        following.wait(timeout=20)
        if following.stdout is not None:
            following.stdout.close()


def test_models_become_recipes_and_files_and_models_again(stack: Stack, tmp_path: Path) -> None:
    stack.cli("model", "clone", DEMO, "twin", "--set", "threads=1")
    stack.cli("recipe", "save", "twin", "small one", "--description", "for a test")
    assert [one["name"] for one in read(stack, "recipe", "list", "-q", "TEST")] == ["small one"]
    made = read(stack, "recipe", "use", "small one", "third", "--set", "replicas=0")
    assert (made["threads"], made["replicas"], made["served_model_name"]) == (1, 0, "third")
    stack.cli("model", "archive", "third")
    names = [one["name"] for one in read(stack, "model", "list")]
    assert "third" not in names
    assert "third" in [one["name"] for one in read(stack, "model", "list", "--archived")]

    file = tmp_path / "models.json"
    stack.cli("model", "export", "--output", str(file))
    tried = read(stack, "model", "import", str(file), "--conflict", "rename", "--dry-run")
    assert {one["outcome"] for one in tried["items"]} == {"renamed"}
    refused = stack.cli("model", "import", str(file), expect=1)
    assert "import_failed" in refused
    assert "twin is taken" in refused
    for name in ("twin", "third"):
        stack.cli("model", "delete", name, "--yes")
    stack.cli("model", "import", str(file), "--conflict", "skip")
    assert read(stack, "model", "show", "third")["archived_at"] is not None
    for name in ("twin", "third"):
        stack.cli("model", "delete", name, "--yes")
    stack.cli("recipe", "delete", "small one", "--yes")
