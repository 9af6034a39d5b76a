"""Prometheus' own tool on what is deployed: configuration, alert rules with their tests, and every query of the boards."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.system, pytest.mark.docker, pytest.mark.timeout(300)]

DEPLOY = Path(__file__).parents[2] / "deploy"
IMAGE = os.environ.get("CORTEX_TEST_PROMETHEUS_IMAGE", "prom/prometheus:latest")
Promtool = Callable[..., str]


@pytest.fixture(scope="module")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> Promtool:
    """`promtool` of PATH or of the image, in a copy of deploy/prometheus."""
    folder = tmp_path_factory.mktemp("prometheus") / "deploy"
    shutil.copytree(DEPLOY / "prometheus", folder)
    queries = [
        target["expr"].replace("$__rate_interval", "1m").replace("$__range", "3h").replace("$model", ".*")
        for board in sorted((DEPLOY / "grafana" / "boards").glob("*.json"))
        for panel in json.loads(board.read_text())["panels"]
        for target in panel.get("targets", ())
    ]
    rules = [{"record": f"board:query_{number}", "expr": query} for number, query in enumerate(queries)]
    (folder / "boards.yml").write_text(yaml.safe_dump({"groups": [{"name": "boards", "rules": rules}]}))
    if program := shutil.which("promtool"):
        command = [program]
    elif shutil.which("docker") and not _run(["docker", "image", "inspect", IMAGE], folder).returncode:
        mount = f"{folder}:/deploy:ro"
        command = ["docker", "run", "--rm", "-v", mount, "-w", "/deploy", "--entrypoint", "promtool", IMAGE]
    elif os.environ.get("CORTEX_REQUIRE_DOCKER") == "1":
        pytest.fail(f"CORTEX_REQUIRE_DOCKER is set and there is neither promtool nor {IMAGE}")
    else:
        pytest.skip("no promtool")

    def run(*arguments: str) -> str:
        done = _run([*command, *arguments], folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_configuration_is_valid(promtool: Promtool) -> None:
    assert "1 rule files found" in promtool("check", "config", "prometheus.yml")


def test_alerts_fire_when_they_should_and_only_then(promtool: Promtool) -> None:
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")


def test_every_query_of_the_boards_is_promql(promtool: Promtool) -> None:
    found = re.search(r"SUCCESS: (\d+) rules found", promtool("check", "rules", "boards.yml"))
    assert found is not None
    assert int(found[1]) > 60
