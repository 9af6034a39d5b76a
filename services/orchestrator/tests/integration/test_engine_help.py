"""The builders' words against the real engines: their own lists of options, and their own parsers."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cortex_contracts.base import ModelId
from cortex_contracts.documents import ModelDocumentV1
from cortex_contracts.engines import LlamaCppOptions, VllmOptions
from cortex_contracts.enums import EngineType, Task
from cortex_orchestrator.adapters.process_catalog import ProcessCatalog
from cortex_orchestrator.domain.engines import ENGINES, BuildRequest
from cortex_orchestrator.domain.engines.capabilities import parse_help
from cortex_orchestrator.domain.spec import HOST, PORT, Capabilities, Program
from cortex_testing.binaries import BinaryMissing, newer_llama_server, vllm

pytestmark = pytest.mark.integration
HELP = Path(__file__).parents[1] / "data" / "help"

LLAMACPP: dict[str, Any] = {
    "ngl": 0,
    "tensor_split": "1",
    "threads": 1,
    "rope_freq_base": 10000.0,
    "rope_freq_scale": 1.0,
    "mlock": True,
    "numa_policy": "distribute",
    "split_mode": "layer",
    "ubatch_size": 64,
    "parallel_slots": 2,
    "kv_unified": False,
    "cache_type_k": "q8_0",
    "cache_type_v": "q4_0",
    "cache_ram_mib": 0,
    "check_tensors": True,
    "skip_warmup": True,
    "jinja_enabled": True,
    "chat_template": "chatml",
    "draft_model_path": "missing.gguf",
    "draft_n": 4,
    "draft_p_min": 0.1,
    "lora_adapters": [{"path": "a.gguf", "scale": 0.5}],
    "pooling": "mean",
    "threads_batch": 1,
    "threads_http": 2,
    "main_gpu": 0,
    "kv_offload": False,
    "n_cpu_moe": 1,
    "cpu_moe": True,
    "n_cpu_ffn": 1,
    "override_tensor": r"blk\.0\.ffn_up=CPU",
    "override_kv": "tokenizer.ggml.add_bos_token=bool:false",
    "fit": False,
    "fit_target_mib": 256,
    "repack": False,
    "op_offload": False,
    "lazy_mode": "off",
    "cont_batching": True,
    "kv_unified_per_slot": 512,
    "swa_full": True,
    "ctx_checkpoints": 4,
    "context_shift": True,
    "cache_prompt": True,
    "cache_reuse": 64,
    "slot_prompt_similarity": 0.5,
    "server_timeout_s": 600,
    "rope_scaling": "yarn",
    "rope_scale": 2.0,
    "yarn_orig_ctx": 2048,
    "yarn_ext_factor": 0.0,
    "yarn_attn_factor": 1.0,
    "yarn_beta_slow": 1.0,
    "yarn_beta_fast": 32.0,
    "chat_template_kwargs": {"enable_thinking": False},
    "reasoning": "off",
    "reasoning_format": "deepseek",
    "reasoning_effort": "low",
    "reasoning_budget": 0,
    "spec_type": "draft-simple",
    "draft_n_min": 1,
    "draft_ngl": 0,
    "draft_cache_type_k": "f16",
    "draft_cache_type_v": "f16",
    "lora_init_without_apply": True,
    "mmproj_path": "p.gguf",
    "mmproj_offload": False,
    "image_min_tokens": 16,
    "image_max_tokens": 64,
    "embd_normalize": 2,
    "verbose_logging": True,
}
VLLM: dict[str, Any] = {
    "dtype": "float32",
    "tp_size": 2,
    "max_model_len": 512,
    "kv_cache_dtype": "fp8",
    "max_num_batched_tokens": 512,
    "max_num_seqs": 4,
    "quantization": "fp8",
    "block_size": 16,
    "cpu_offload_gb": 1.0,
    "enforce_eager": True,
    "trust_remote_code": True,
    "enable_prefix_caching": False,
    "prefix_caching_hash_algo": "sha256",
    "enable_chunked_prefill": False,
    "tokenizer": "org/tokenizer",
    "hf_config_path": "org/config",
    "attention_backend": "FLASH_ATTN",
    "tool_call_parser": "openai",
    "reasoning_parser": "openai_gptoss",
    "kv_cache_memory_bytes": 2**28,
    "kv_offloading_size": 1.0,
    "cuda_graph_sizes": [1, 2],
    "max_cudagraph_capture_size": 2,
    "optimization_level": 0,
    "performance_mode": "interactivity",
    "data_parallel_size": 1,
    "enable_expert_parallel": True,
    "distributed_executor_backend": "mp",
    "disable_custom_all_reduce": True,
    "numa_bind": True,
    "lora_modules": [{"name": "sql", "repo_id": "org/sql"}],
    "max_loras": 2,
    "max_lora_rank": 64,
    "max_cpu_loras": 4,
    "fully_sharded_loras": True,
    "revision": "main",
    "tokenizer_revision": "main",
    "tokenizer_mode": "hf",
    "config_format": "hf",
    "model_impl": "transformers",
    "safetensors_load_strategy": "prefetch",
    "hf_overrides": {"rope_theta": 10000.0},
    "generation_config": "vllm",
    "override_generation_config": {"top_p": 0.5},
    "pooler_config": {"use_activation": True},
    "chat_template": "{{ messages }}",
    "chat_template_content_format": "string",
    "chat_template_kwargs": {"enable_thinking": False},
    "limit_mm_per_prompt": {"image": 2},
    "mm_processor_kwargs": {"num_crops": 4},
    "mm_processor_cache_gb": 1.0,
    "language_model_only": True,
    "scheduling_policy": "priority",
    "async_scheduling": False,
    "long_prefill_token_threshold": 128,
    "stream_interval": 2,
    "max_logprobs": 5,
    "disable_sliding_window": True,
    "speculative_method": "ngram",
    "draft_n": 3,
    "prompt_lookup_max": 4,
    "enable_log_requests": True,
    "max_log_len": 100,
}
PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
for words in json.load(sys.stdin):
    parser.parse_args(words)
print("parsed")
"""


def document(engine: EngineType, options: dict[str, Any], task: Task = Task.GENERATE) -> ModelDocumentV1:
    return ModelDocumentV1(
        id=ModelId("m1"),
        name="M",
        served_model_name="served",
        engine_type=engine,
        local_path="missing.gguf" if engine is EngineType.LLAMACPP else None,
        repo_id="org/name",
        llamacpp=LlamaCppOptions.model_validate(options) if engine is EngineType.LLAMACPP else None,
        vllm=VllmOptions.model_validate(options) if engine is EngineType.VLLM else None,
        task=task,
        aggregateversion=1,
    )


def words(model: ModelDocumentV1, capabilities: Capabilities, root: str) -> list[str]:
    command = ENGINES[model.engine_type].build(BuildRequest(model, Program("x", capabilities), root))
    return [{HOST: "127.0.0.1", PORT: "1"}.get(word, word) for word in command.argv]


def output_of(binary: Path, arguments: list[str]) -> tuple[int, str]:
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stdout + done.stderr


def llama_builds(wheel: Path) -> dict[str, Path]:
    newer = newer_llama_server()
    return {"10434": wheel} | ({"11434": newer} if newer is not None else {})


def test_recorded_lists_are_those_of_the_real_builds(llama_server_binary: Path) -> None:
    for build, binary in llama_builds(llama_server_binary).items():
        recorded = (HELP / f"llama-server-{build}.txt").read_text()
        assert parse_help(output_of(binary, ["--help"])[1]) == parse_help(recorded), build


@pytest.mark.parametrize("task", Task)
def test_a_real_llama_server_takes_every_option(llama_server_binary: Path, tmp_path: Path, task: Task) -> None:
    for build, binary in llama_builds(llama_server_binary).items():
        capabilities = parse_help((HELP / f"llama-server-{build}.txt").read_text())
        arguments = words(document(EngineType.LLAMACPP, LLAMACPP, task), capabilities, str(tmp_path))
        code, text = output_of(binary, arguments)
        assert code == 1, "there is no model file"
        refused = re.search(r"invalid argument|error while handling|unknown value|^usage:", text)
        assert refused is None, f"{build}: {text[-2000:]}"
        assert re.search(r"missing\.gguf|srv +init", text), (
            "it got as far as loading; its logger may lose the last line"
        )


def test_the_list_of_options_covers_the_contract() -> None:
    files = {"chat_template_file", "grammar_file", "no_mmap", "load_mode"}
    defaulted = {"batch_size", "context_size", "flash_attention"}
    assert set(LLAMACPP) | files | defaulted == set(LlamaCppOptions.model_fields)
    defaulted = {"pipeline_parallel_size", "gpu_memory_utilization", "enable_lora", "verbose_logging"}
    assert set(VLLM) | {"chat_template_file", "draft_model_path", "draft_repo_id", "prompt_lookup_min"} | defaulted == (
        set(VllmOptions.model_fields)
    )


@pytest.fixture(scope="session")
def real_vllm() -> Path:
    try:
        return vllm()
    except BinaryMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.vllm
@pytest.mark.timeout(300)
def test_the_real_vllm_parses_every_option(real_vllm: Path) -> None:
    commands = [words(document(EngineType.VLLM, VLLM, task), Capabilities(), "/models") for task in Task]
    python = real_vllm.resolve().parent / "python"
    done = subprocess.run(
        [python, "-c", PARSE], input=json.dumps(commands), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.strip().endswith("parsed"), done.stderr[-2000:]


@pytest.mark.vllm
@pytest.mark.timeout(300)
async def test_the_recorded_list_is_that_of_the_real_vllm(real_vllm: Path) -> None:
    catalog = ProcessCatalog({EngineType.VLLM: real_vllm}, {"PATH": "/usr/bin:/bin"})
    program = await catalog.find(ENGINES[EngineType.VLLM], None, lambda *_: None)
    assert program.version is not None
    assert program.version.startswith("0.32.")
    assert not program.capabilities.flags, "the checked version need not be asked"
    done = subprocess.run([real_vllm, "serve", "--help=all"], capture_output=True, text=True, timeout=240, check=False)
    assert parse_help(done.stdout) == parse_help((HELP / "vllm-0.32.0.txt").read_text())
