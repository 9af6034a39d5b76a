"""Records how the engines of this machine fail: runs each into the fault and keeps the end of its output.

    python services/orchestrator/tests/data/logs/record.py (llamacpp | vllm) [CASE …]

Needs a llama-server (and the newer build for some cases), or a vLLM for CPU with a tiny model: cortex_testing.binaries
finds them. Writes <engine>/<case>.log and what it was recorded from into <engine>/recorded.json.
"""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from cortex_testing.binaries import demo_gguf, llama_server, newer_llama_server, tiny_vllm_model, vllm
from cortex_testing.gguf import GgufBuilder, llama
from cortex_testing.gguf_split import split_gguf

HERE = Path(__file__).parent
LINES = 200
TIMEOUT_S = 300.0
AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@dataclass(frozen=True, slots=True)
class Case:
    """One way to fail. `prepare` fills the models folder; `words` name files below it as {models}/…"""

    name: str
    words: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda _: None
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    prefix: tuple[str, ...] = ()
    """What runs the engine: a limit, another user."""
    port_taken: bool = False
    requests: int = 0
    """Serves so many requests and is stopped, instead of failing."""
    hub: tuple[int, str] | None = None
    """A Hugging Face hub of our own answers everything with this status and error code."""
    takes_all_memory: bool = False
    """Ends by the kernel's out-of-memory killer: recorded only when it is named."""
    newer: bool = False
    """With the newer llama-server."""


def small(folder: Path, name: str = "m.gguf", change: Callable[[GgufBuilder], object] | None = None) -> Path:
    builder = llama(filled=True)
    if change is not None:
        change(builder)
    return builder.write(folder / name)


def demo(folder: Path) -> Path:
    return Path(shutil.copy(demo_gguf(), folder / "demo.gguf"))


def cut(path: Path, keep: float) -> None:
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * keep))


def write(folder: Path, name: str, content: bytes | str) -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def patched(old: bytes, new: bytes) -> Callable[[Path], None]:
    """The demo model with some bytes of its header replaced by as many others."""

    def prepare(folder: Path) -> None:
        path = demo(folder)
        data = path.read_bytes()
        assert old in data, old
        assert len(old) == len(new), (old, new)
        path.write_bytes(data.replace(old, new, 1))

    return prepare


def architecture(name: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        GgufBuilder(name).text("general.type", "model").write(folder / "m.gguf")

    return prepare


def split(folder: Path) -> list[Path]:
    return split_gguf(demo_gguf(), folder, 3)


def without_part(folder: Path) -> None:
    split(folder)[1].unlink()


def renamed_part(folder: Path) -> None:
    split(folder)[0].rename(folder / "first.gguf")


def lora_for_another(folder: Path) -> None:
    demo(folder)
    adapter = GgufBuilder("gemma").text("general.type", "adapter").text("adapter.type", "lora")
    adapter.number("adapter.lora.alpha", 1.0, 6)  # type: ignore[arg-type]
    adapter.write(folder / "lora.gguf")


def lora_of_other_width(folder: Path) -> None:
    demo(folder)
    adapter = GgufBuilder("llama").text("general.type", "adapter").text("adapter.type", "lora")
    adapter.raw("adapter.lora.alpha", struct.pack("<If", 6, 8.0))
    adapter.tensor("blk.0.attn_q.weight.lora_a", (64, 8)).tensor("blk.0.attn_q.weight.lora_b", (8, 64))
    adapter.write(folder / "lora.gguf")


def invalid_tensors(folder: Path) -> None:
    def poison(builder: GgufBuilder) -> None:
        index = next(i for i, tensor in enumerate(builder.tensors) if tensor.name == "output_norm.weight")
        dims = builder.tensors.pop(index).dims
        builder.tensor("output_norm.weight", dims, data=struct.pack(f"<{dims[0]}f", *([float("nan")] * dims[0])))

    small(folder, change=poison)


def unreadable(folder: Path) -> None:
    demo(folder).chmod(0o600)


DEMO = ("-m", "{models}/demo.gguf", "-c", "512")
TINY = ("-m", "{models}/m.gguf", "-c", "512")
LLAMACPP = (
    Case("healthy", (*DEMO, "--metrics", "--no-ui"), demo, requests=3),
    Case("healthy_newer", (*DEMO, "--metrics", "--no-ui", "--no-repack"), demo, requests=3, newer=True),
    Case("illegal_instruction", (*DEMO, "-t", "1"), demo, newer=True),
    Case("file_missing", DEMO),
    Case("part_missing", ("-m", "{models}/model-00001-of-00003.gguf", "-c", "512"), without_part),
    Case("second_part_given", ("-m", "{models}/model-00002-of-00003.gguf", "-c", "512"), split),
    Case("part_renamed", ("-m", "{models}/first.gguf", "-c", "512"), renamed_part),
    Case("not_a_gguf", TINY, lambda folder: write(folder, "m.gguf", b"<!DOCTYPE html>" + b" " * 4096)),
    Case(
        "lfs_pointer",
        TINY,
        lambda folder: write(folder, "m.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    ),
    Case("empty_file", TINY, lambda folder: write(folder, "m.gguf", b"")),
    Case("truncated", DEMO, lambda folder: cut(demo(folder), 0.5)),
    Case("truncated_header", DEMO, lambda folder: cut(demo(folder), 0.01)),
    Case("old_gguf_version", DEMO, patched(b"GGUF\3\0\0\0", b"GGUF\1\0\0\0")),
    Case("big_endian", DEMO, patched(b"GGUF\3\0\0\0", b"GGUF\0\0\0\3")),
    Case("unknown_architecture", TINY, architecture("nosuch")),
    Case("unknown_pre_tokenizer", DEMO, patched(b"smollm\x15", b"nosuch\x15")),
    Case("unknown_tokenizer", DEMO, patched(b"\4\0\0\0\0\0\0\0gpt2", b"\4\0\0\0\0\0\0\0gptx")),
    Case("missing_metadata", DEMO, patched(b"llama.block_count", b"llama.block_counx")),
    Case("missing_tensor", DEMO, patched(b"blk.0.attn_q.weight", b"blk.0.attn_x.weight")),
    Case("invalid_tensor_data", (*TINY, "--check-tensors"), invalid_tensors),
    Case("unknown_argument", (*DEMO, "--nonsense"), demo),
    Case("removed_argument", (*DEMO, "--mlock"), demo, newer=True),
    Case("removed_draft_argument", (*DEMO, "--draft-max", "4"), demo),
    Case("bad_value", (*DEMO, "--cache-type-k", "q9"), demo),
    Case("bad_number", (*DEMO, "--threads", "many"), demo),
    Case("value_missing", (*DEMO, "--threads"), demo),
    Case("quantized_v_without_flash", (*DEMO, "-fa", "off", "-ctv", "q8_0"), demo),
    Case("too_many_splits", (*DEMO, "-ts", ",".join(["1"] * 20)), demo),
    Case("bad_template", (*DEMO, "--chat-template", "{% if %}"), demo),
    Case("bad_grammar_file", (*DEMO, "--grammar-file", "{models}/none.gbnf"), demo),
    Case("projector_missing", (*DEMO, "--mmproj", "{models}/p.gguf"), demo),
    Case("projector_mismatch", (*DEMO, "--mmproj", "{models}/m.gguf"), lambda folder: (demo(folder), small(folder))),
    Case("lora_missing", (*DEMO, "--lora-scaled", "{models}/l.gguf:1"), demo),
    Case("lora_wrong_architecture", (*DEMO, "--lora-scaled", "{models}/lora.gguf:1"), lora_for_another),
    Case("lora_wrong_shape", (*DEMO, "--lora-scaled", "{models}/lora.gguf:1"), lora_of_other_width),
    Case("draft_missing", (*DEMO, "--spec-draft-model", "{models}/d.gguf", "--spec-type", "draft-simple"), demo),
    Case("port_taken", DEMO, demo, port_taken=True),
    Case("killed", ("-m", "{models}/demo.gguf", "-c", "2000000000", "-fit", "off"), demo, takes_all_memory=True),
    Case("memory_limit", DEMO, demo, prefix=("prlimit", "--as=400000000")),
    Case("permission_denied", DEMO, unreadable, prefix=AS_NOBODY),
)


def tiny(folder: Path, change: Callable[[Path], object] | None = None) -> None:
    target = folder / "tiny"
    shutil.copytree(tiny_vllm_model(), target)
    if change is not None:
        change(target)


def changed(**entries: object) -> Callable[[Path], None]:
    """The tiny model with other entries in its config.json."""

    def change(target: Path) -> None:
        config = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**config, **entries}))

    return lambda folder: tiny(folder, change)


def without(*names: str) -> Callable[[Path], None]:
    def change(target: Path) -> None:
        for name in names:
            (target / name).unlink()

    return lambda folder: tiny(folder, change)


def adapter(rank: int) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        tiny(folder)
        target = folder / "lora"
        target.mkdir()
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
        (target / "adapter_config.json").write_text(json.dumps(config))
        shape = {"a": [rank, 64], "b": [64, rank]}
        prefix = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
        header: dict[str, object] = {}
        offset = 0
        for letter, dims in shape.items():
            size = dims[0] * dims[1] * 4
            key = f"{prefix}{letter.upper()}.weight"
            header[key] = {"dtype": "F32", "shape": dims, "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header).encode()
        (target / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))

    return prepare


MODEL = "{models}/tiny"
LIGHT = ("--max-model-len", "256", "--enforce-eager", "--dtype", "float32", "--gpu-memory-utilization", "0.1")
OFFLINE = {"HF_HUB_OFFLINE": "1"}
VLLM = (
    Case("healthy", (MODEL, *LIGHT), tiny, requests=3),
    Case("unknown_argument", (MODEL, *LIGHT, "--swap-space", "4"), tiny),
    Case("bad_value", (MODEL, *LIGHT, "--kv-cache-dtype", "fp9"), tiny),
    Case("folder_missing", ("{models}/none", *LIGHT), env=OFFLINE),
    Case("config_missing", (MODEL, *LIGHT), without("config.json"), env=OFFLINE),
    Case("config_damaged", (MODEL, *LIGHT), lambda folder: (tiny(folder), cut(folder / "tiny/config.json", 0.5))),
    Case("tokenizer_missing", (MODEL, *LIGHT), without("tokenizer.json", "tokenizer_config.json"), env=OFFLINE),
    Case("weights_missing", (MODEL, *LIGHT), without("model.safetensors"), env=OFFLINE),
    Case("weights_damaged", (MODEL, *LIGHT), lambda folder: (tiny(folder), cut(folder / "tiny/model.safetensors", 0.5))),
    Case("weights_of_other_shape", (MODEL, *LIGHT), changed(hidden_size=128)),
    Case("unknown_architecture", (MODEL, *LIGHT), changed(architectures=["NoSuchForCausalLM"])),
    Case("unknown_model_type", (MODEL, *LIGHT), changed(model_type="nosuch", architectures=["NoSuchForCausalLM"])),
    Case("remote_code_needed", (MODEL, *LIGHT), changed(model_type="nosuch", auto_map={"AutoConfig": "c.Config"})),
    Case("gguf_file", ("{models}/m.gguf", *LIGHT), small),
    Case("offline_repository", ("org/none", *LIGHT), env=OFFLINE),
    Case("hub_unreachable", ("org/none", *LIGHT), env={"HF_ENDPOINT": "http://127.0.0.1:9"}),
    Case("context_too_long", (MODEL, "--max-model-len", "999999", "--enforce-eager", "--dtype", "float32"), tiny),
    Case("kv_cache_too_small", (MODEL, *LIGHT[2:], "--max-model-len", "1024", "--kv-cache-memory-bytes", "600000"), tiny),
    Case("no_room_for_cache", (MODEL, *LIGHT, "--kv-cache-memory-bytes", "100"), tiny),
    Case("memory_share", (MODEL, *LIGHT[:-1], "1.0"), tiny),
    Case("out_of_host_memory", (MODEL, *LIGHT, "--kv-cache-memory-bytes", str(2**45)), tiny),
    Case("allocation_failed", (MODEL, *LIGHT), tiny, prefix=("prlimit", "--as=3000000000")),
    Case("unknown_quantization", (MODEL, *LIGHT, "--quantization", "nosuch"), tiny),
    Case("quantization_mismatch", (MODEL, *LIGHT, "--quantization", "awq"), tiny),
    Case("quantization_unsupported", (MODEL, *LIGHT), changed(quantization_config={"quant_method": "bitsandbytes"})),
    Case("heads_not_divisible", (MODEL, *LIGHT, "--tensor-parallel-size", "3"), tiny),
    Case("too_many_gpus", (MODEL, *LIGHT, "--tensor-parallel-size", "2", "--distributed-executor-backend", "ray"), tiny),
    Case("lora_rank", (MODEL, *LIGHT, "--enable-lora", "--lora-modules", "a={models}/lora"), adapter(64)),
    Case("lora_missing", (MODEL, *LIGHT, "--enable-lora", "--lora-modules", "a={models}/none"), tiny, env=OFFLINE),
    Case("unknown_tool_parser", (MODEL, *LIGHT, "--enable-auto-tool-choice", "--tool-call-parser", "nosuch"), tiny),
    Case("unknown_reasoning_parser", (MODEL, *LIGHT, "--reasoning-parser", "nosuch"), tiny),
    Case("template_missing", (MODEL, *LIGHT, "--chat-template", "{models}/none.jinja"), tiny),
    Case("not_for_pooling", (MODEL, *LIGHT, "--runner", "pooling", "--convert", "none"), tiny),
    Case("port_taken", (MODEL, *LIGHT), tiny, port_taken=True),
    Case("unknown_backend", (MODEL, *LIGHT, "--attention-backend", "NOSUCH"), tiny),
    Case("dtype_unsupported", (MODEL, *LIGHT, "--quantization", "mxfp4"), tiny),
    Case("permission_denied", (MODEL, *LIGHT), lambda folder: (tiny(folder), (folder / "tiny/config.json").chmod(0)),
         prefix=("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")),
    Case("repository_gated", ("org/none", *LIGHT), hub=(403, "GatedRepo")),
    Case("repository_not_found", ("org/none", *LIGHT), hub=(404, "RepoNotFound")),
    Case("revision_not_found", ("org/none", *LIGHT, "--revision", "none"), hub=(404, "RevisionNotFound")),
    Case("token_refused", ("org/none", *LIGHT), env={"HF_TOKEN": "hf_wrong"}, hub=(401, "")),
)  # fmt: skip


def main() -> None:
    engine, wanted = sys.argv[1], set(sys.argv[2:])
    cases = LLAMACPP if engine == "llamacpp" else VLLM
    target = HERE / engine
    target.mkdir(exist_ok=True)
    listing = target / "recorded.json"
    for case in cases:
        if case.name not in wanted and (wanted or case.takes_all_memory):
            continue
        began = time.monotonic()
        code, lines, command, version = run(case, engine)
        text = "\n".join(lines[-LINES:]) + "\n"
        (target / f"{case.name}.log").write_text(text)
        recorded = json.loads(listing.read_text()) if listing.exists() else {}
        expected = recorded.get(case.name, {}).get("diagnosis")
        recorded[case.name] = {"engine": version, "command": command, "exit_code": code, "diagnosis": expected}
        listing.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
        print(  # noqa: T201 (a script)
            f"{case.name:28} exit {code:4} {time.monotonic() - began:5.1f} s  {lines[-1][:120] if lines else ''}",
            flush=True,
        )


def run(case: Case, engine: str) -> tuple[int, list[str], str, str]:
    with tempfile.TemporaryDirectory(prefix="record-") as scratch:
        models = Path(scratch) / "models"
        models.mkdir()
        Path(scratch).chmod(0o755)
        case.prepare(models)
        binary = program(case, engine)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            if not case.port_taken:
                listener.close()
            words = [word.replace("{models}", str(models)) for word in case.words]
            command = [*case.prefix, str(binary), *(["serve"] if engine == "vllm" else []), *words]
            command += ["--host", "127.0.0.1", "--port", str(port)]
            if engine == "llamacpp" and "-lv" not in words:
                command += ["-lv", "4"]
            code, output = execute(command, case, port)
    cleaned = clean(output, str(models), binary)
    said = " ".join(clean(" ".join(command), str(models), binary)).replace(str(port), "8000")
    return code, cleaned, said, version(binary, engine)


def program(case: Case, engine: str) -> Path:
    if engine == "vllm":
        return vllm()
    newer = newer_llama_server() if case.newer else None
    return newer or llama_server()


def answering(status: int, code: str) -> ThreadingHTTPServer:
    """A hub that refuses."""

    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET
        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    Thread(target=server.serve_forever, daemon=True).start()
    return server


def execute(command: list[str], case: Case, port: int) -> tuple[int, str]:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "VLLM_NO_USAGE_STATS": "1", **case.env}
    if case.hub is not None:
        environment["HF_ENDPOINT"] = f"http://127.0.0.1:{answering(*case.hub).server_port}"
    with tempfile.TemporaryFile("w+b") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            if case.requests:
                ask(port, case.requests, process)
                process.terminate()
            code = process.wait(TIMEOUT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        log.seek(0)
        return code, log.read().decode(errors="replace")


def ask(port: int, count: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until it serves, then send that many chats."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    break
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline or process.poll() is not None:
                raise
        time.sleep(0.2)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=30) as answer:
        name = json.load(answer)["data"][0]["id"]
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}).encode()
    for _ in range(count):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions", body, {"content-type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=120).read()


def clean(text: str, models: str, binary: Path) -> list[str]:
    """No path of this machine: the models folder as /models, packages as …/site-packages."""
    text = text.replace(models, "/models").replace(str(binary.parent), "…/bin")
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"/[^\s'\"]*/site-packages", "…/site-packages", text)
    text = re.sub(r"/[^\s'\"]*/lib/python3", "…/lib/python3", text)
    text = text.replace(str(Path.home()), "~")
    return [line[:1000] for line in text.splitlines()]


def version(binary: Path, engine: str) -> str:
    if engine == "vllm":
        found = next(binary.resolve().parent.parent.glob("lib/python*/site-packages/vllm-*.dist-info"))
        return found.name.removesuffix(".dist-info").replace("-", " ")
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=20, check=False)
    number = re.search(r"version: (\d+)", done.stdout + done.stderr)
    return f"llama-server {number.group(1) if number else '?'}"


if __name__ == "__main__":
    main()
