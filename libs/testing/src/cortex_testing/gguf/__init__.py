"""Writes GGUF files for tests: small real ones, and sparse ones with the header of a large model."""

from cortex_testing.gguf.fixtures import deepseek2, gemma3, gpt_oss, gpt_oss_20b, gpt_oss_120b, jamba, llama
from cortex_testing.gguf.writer import Dtype, GgufBuilder, Kind, RawTensor, tensor_bytes, tensor_content

__all__ = [
    "Dtype",
    "GgufBuilder",
    "Kind",
    "RawTensor",
    "deepseek2",
    "gemma3",
    "gpt_oss",
    "gpt_oss_20b",
    "gpt_oss_120b",
    "jamba",
    "llama",
    "tensor_bytes",
    "tensor_content",
]
