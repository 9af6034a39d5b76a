"""A few seconds of the fuzzer in every run of the tests; `fuzz_reader.py` alone runs for as long as one likes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzz_reader.py")


@pytest.mark.integration
@pytest.mark.timeout(60)
def test_broken_headers_are_refused_quickly_in_little_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--minutes", "0.05", "--seed", "7", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["executions"] > 100
    assert {"accepted", "gguf_corrupt", "gguf_truncated"} <= set(result["outcomes"])
