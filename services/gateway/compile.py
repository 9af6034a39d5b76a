"""Compiles the gateway's hot path to machine code, from the same sources (docs/adr/0015).

  python services/gateway/compile.py --into .venv/compiled     then: PYTHONPATH=.venv/compiled python -m cortex_gateway

The folder gets a copy of the package with compiled modules beside their sources. `cortex up` uses .venv/compiled by itself
as long as it was made from the sources that are there. Needs a C compiler and the headers of Python; takes one to two
minutes. mypy checks the types on the way: what it does not accept is not compiled, and the exit status says so.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "src" / "cortex_gateway"
INTERPRETED = frozenset(
    {
        # Structures of msgspec and pydantic read their annotations when they are made; what starts and what is scraped is rare.
        "__init__",
        "__main__",
        "app",
        "settings",
        "projection",
        "entrypoints/operations",
        "entrypoints/server",
        "adapters/cancel_bus",
        "adapters/counters",
        "adapters/hints",
        "adapters/snapshot",
        "adapters/token_counter",
        "adapters/usage_publisher",
        "domain/errors",
        "domain/event_heads",
        "domain/request_fields",
        "domain/typed_streams",
        "domain/usage_shapes",
        "domain/levelling/choices",
        "domain/levelling/engine_errors",
        "domain/levelling/logprobs",
        "domain/levelling/rerank",
        "domain/levelling/responses",
        "domain/levelling/tokens",
    }
)
SETUP = """
from mypyc.build import mypycify
from setuptools import setup
options = ["--python-executable", {python!r}, "--ignore-missing-imports", "--follow-imports=silent"]
setup(name="cortex-gateway-compiled", ext_modules=mypycify([*options, *{modules!r}], opt_level="2", debug_level="0", multi_file=True))
"""


def modules() -> list[str]:
    """Paths of the modules to compile, relative to the folder above the package."""
    found: list[str] = []
    for path in sorted(SOURCES.rglob("*.py")):
        name = path.relative_to(SOURCES).with_suffix("").as_posix()
        if name not in INTERPRETED and path.name != "__init__.py":
            found.append(f"cortex_gateway/{path.relative_to(SOURCES).as_posix()}")
    return found


def compile_into(target: Path) -> int:
    """Make the folder anew; the exit status of the compiler."""
    with tempfile.TemporaryDirectory(prefix="cortex-compile-") as name:
        work = Path(name)
        shutil.copytree(SOURCES, work / "cortex_gateway", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        (work / "setup.py").write_text(SETUP.format(python=sys.executable, modules=modules()))
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j", str(os.cpu_count() or 1)]
        done = subprocess.run(
            command, check=False, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            sys.stderr.write("\n".join(done.stdout.splitlines()[-30:]) + "\n")
            return done.returncode
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        shutil.copytree(work / "cortex_gateway", target / "cortex_gateway")
        for library in work.glob("*.so"):
            shutil.copy2(library, target)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, required=True, help="folder to make anew")
    raise SystemExit(compile_into(parser.parse_args().into))


if __name__ == "__main__":
    main()
