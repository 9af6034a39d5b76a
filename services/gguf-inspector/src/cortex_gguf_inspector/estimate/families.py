"""What llama.cpp knows about an architecture and the file does not say."""

from collections.abc import Sequence
from types import MappingProxyType

_WHY_INDEXER = "it keeps an indexer cache besides keys and values"
_WHY_STATE = "the state of its recurrent layers has a formula of its own"

UNKNOWN = MappingProxyType(
    {
        **dict.fromkeys(("deepseek32", "deepseek4", "glm-dsa", "glm5-next", "minimax-m3", "dots3note"), _WHY_INDEXER),
        **dict.fromkeys(("rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7", "lfm2", "lfm2moe"), _WHY_STATE),
        **dict.fromkeys(("kimi-linear", "minimax-01"), _WHY_STATE),
        **dict.fromkeys(("t5", "t5encoder"), "it has an encoder and a decoder"),
        **dict.fromkeys(("clip", "wavtokenizer-dec"), "it is no language model"),
    }
)
"""Architectures whose memory is not computed, and why."""

ENCODERS = frozenset(
    [
        "bert",
        "nomic-bert",
        "nomic-bert-moe",
        "jina-bert-v2",
        "jina-bert-v3",
        "modern-bert",
        "neo-bert",
        "eurobert",
        "gemma-embedding",
        "llama-embed",
    ]
)
"""Models that keep no keys and values."""

_STANDARD = frozenset(
    [
        "llama",
        "llama4",
        "deci",
        "falcon",
        "grok",
        "gpt2",
        "gptj",
        "gptneox",
        "mpt",
        "baichuan",
        "starcoder",
        "refact",
        "bloom",
        "stablelm",
        "qwen",
        "qwen2",
        "qwen2moe",
        "qwen2vl",
        "qwen3",
        "qwen3moe",
        "qwen3vl",
        "qwen3vlmoe",
        "phi2",
        "phi3",
        "phimoe",
        "plamo",
        "plamo3",
        "codeshell",
        "orion",
        "internlm2",
        "minicpm",
        "minicpm3",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3n",
        "starcoder2",
        "xverse",
        "command-r",
        "cohere2",
        "cohere2moe",
        "dbrx",
        "olmo",
        "olmo2",
        "olmoe",
        "openelm",
        "arctic",
        "deepseek",
        "deepseek2",
        "chatglm",
        "glm4",
        "glm4moe",
        "bitnet",
        "jais",
        "nemotron",
        "exaone",
        "exaone4",
        "granite",
        "granitemoe",
        "chameleon",
        "plm",
        "bailingmoe",
        "bailingmoe2",
        "dots1",
        "arcee",
        "ernie4_5",
        "ernie4_5-moe",
        "hunyuan-moe",
        "hunyuan-dense",
        "smollm3",
        "gpt-oss",
        "smallthinker",
        "llada",
        "llada-moe",
        "dream",
        "seed_oss",
        "grovemoe",
        "apertus",
        "minimax-m2",
        "cogvlm",
        "afmoe",
        "mistral3",
        "pangu-embedded",
        "mimo2",
        "step35",
    ]
)
"""Architectures with plain attention caches, dense or with experts."""

HYBRIDS = frozenset(
    [
        "mamba",
        "mamba2",
        "jamba",
        "falcon-h1",
        "plamo2",
        "granitehybrid",
        "nemotron_h",
        "nemotron_h_moe",
        "qwen3next",
        "qwen35",
        "qwen35moe",
    ]
)
BOTH = frozenset({"falcon-h1"})
"""Attention and a recurrent state in the same layer."""

_PERIODS = MappingProxyType(
    {
        "gpt-oss": 2,
        "gemma2": 2,
        "gemma3": 6,
        "gemma3n": 5,
        "cohere2": 4,
        "llama4": 4,
        "olmo2": 4,
        "exaone4": 4,
        "afmoe": 4,
        "plamo3": 8,
    }
)
"""Of so many layers the last is full, the others slide."""
_DENSE_FIRST = MappingProxyType({"smallthinker": 4, "cohere2moe": 4, "modern-bert": 3})
"""Of so many layers the first is full, the others slide."""
_WINDOWS = MappingProxyType({"gemma2": 4096, "llama4": 8192, "exaone4": 4096})
"""Windows of architectures whose files do not name one."""
_EXAONE4_SLIDING_LAYERS = 64
"""Only the large exaone4 slides; the engine tells it by its number of layers."""
_CHOOSES_PATTERN = frozenset({*_PERIODS, *_DENSE_FIRST, "gemma-embedding", "gemma4", "mimo2", "step35"})
_SHARED_FROM = MappingProxyType({"gemma3n": 20})
"""Layers from here on reuse the caches of earlier ones."""

_KNOWN_GRAPHS = _STANDARD | {"jamba"}


def unknown(architecture: str) -> str | None:
    """Why the memory of an architecture cannot be computed; None when it can."""
    if architecture in UNKNOWN:
        return f"{architecture}: {UNKNOWN[architecture]}; the engine itself can tell (fit-params)"
    if architecture in _STANDARD or architecture in ENCODERS or architecture in HYBRIDS:
        return None
    return f"architecture {architecture or '(none)'} is not known to the estimator"


def approximate(architecture: str) -> str | None:
    """Why the compute buffer of an architecture is a rule of thumb; None when its graph is known."""
    if architecture in _KNOWN_GRAPHS:
        return None
    return f"the compute buffer of {architecture} is a rule of thumb (about 20 %, on the safe side)"


def window(architecture: str, named: int, count: int) -> int:
    """Tokens a sliding layer sees; `named` is the file's number, -1 when it has none."""
    if architecture == "exaone4" and count != _EXAONE4_SLIDING_LAYERS:
        return 0
    if named >= 0:
        return named
    return _WINDOWS.get(architecture, 0)


def sliding(
    architecture: str, count: int, window_tokens: int, pattern: tuple[bool, ...] | int | None
) -> tuple[bool, ...]:
    """Which layers slide."""
    if not window_tokens or architecture not in _CHOOSES_PATTERN:
        return (False,) * count
    if isinstance(pattern, tuple):
        return pattern[:count] + (False,) * max(0, count - len(pattern))
    if architecture in _DENSE_FIRST:
        period = pattern or _DENSE_FIRST[architecture]
        return tuple(index % period != 0 for index in range(count))
    period = pattern or _PERIODS.get(architecture, 1)
    return tuple(index % period < period - 1 for index in range(count))


def recurrent(
    architecture: str, heads_kv: Sequence[int], n_ff: Sequence[int], attention_interval: int
) -> tuple[bool, ...]:
    """Which layers keep a recurrent state."""
    count = len(heads_kv)
    if architecture in ("mamba", "mamba2", "falcon-h1"):
        return (True,) * count
    if architecture in ("qwen3next", "qwen35", "qwen35moe"):
        period = attention_interval or 4
        return tuple((index + 1) % period != 0 for index in range(count))
    if architecture in ("nemotron_h", "nemotron_h_moe"):
        return tuple(heads == 0 and width == 0 for heads, width in zip(heads_kv, n_ff, strict=True))
    if architecture in HYBRIDS:
        return tuple(heads == 0 for heads in heads_kv)
    return (False,) * count


def cached_layers(architecture: str, count: int, nextn: int, shared: int) -> int:
    """How many of the first layers keep keys and values."""
    if architecture in _SHARED_FROM:
        return min(count, _SHARED_FROM[architecture])
    return max(0, count - nextn - shared)
