"""All phases of schemathesis against a registry that runs: minutes, for a change of the admin API.

    CORTEX_REGISTRY_URL=http://127.0.0.1:8081 CORTEX_ADMIN_TOKEN=... python tests/bench/admin_api_fuzz.py [examples]

It fills the installation with nonsense: use one that can be thrown away (`cortex up --home /somewhere/new`).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "services" / "registry" / "tests" / "schemathesis"


def main() -> int:
    """Run; the exit code is schemathesis's."""
    url, token = os.environ["CORTEX_REGISTRY_URL"].rstrip("/"), os.environ["CORTEX_ADMIN_TOKEN"]
    examples = sys.argv[1] if len(sys.argv) > 1 else "50"
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(FOLDER / "schemathesis.toml")),
        *("run", f"{url}/admin/openapi.json", "--url", url, "--exclude-path-regex", "/(stream|follow)$"),
        *("--header", f"Authorization: Bearer {token}", "--checks", "all", "--max-examples", examples),
        *("--continue-on-failure", "--warnings", "off"),
    ]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(FOLDER)}
    with tempfile.TemporaryDirectory() as caches:
        return subprocess.run(command, env=environment, cwd=caches, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
