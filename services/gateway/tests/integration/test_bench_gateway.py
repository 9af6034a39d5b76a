"""The benchmark itself, for a moment: what it measures are answers, each with its usage, over real NATS documents."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[4]


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_benchmark_measures_answers_and_no_errors(tmp_path: Path):
    out = tmp_path / "results.json"
    command = [sys.executable, "-m", "tests.bench.gateway", "--only", "direct,gateway", "--rounds", "1"]
    command += ["--seconds", "0.5", "--runs", "busy16,stream", "--cores", "0,0", "--keys", "20", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    rounds = json.loads(out.read_text())["rounds"]
    for name in ("direct", "gateway"):
        for run in ("busy16", "stream"):
            [outcome] = rounds[name][run]
            assert outcome["not_200"] == outcome["broken"] == outcome.get("streams_cut", 0) == 0, (name, run)
    busy = rounds["gateway"]["busy16"][0]
    assert busy["complete"] > 0
    assert busy["usages"] == busy["complete"]
    assert busy["cpu_us_per_request"] > 0
    assert rounds["gateway"]["stream"][0]["events_per_s"] > 0
