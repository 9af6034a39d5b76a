"""Facts that follow from a header but are not written in it. Pure; None or empty means: not known."""

import re
from collections.abc import Iterable, Sequence
from types import MappingProxyType

from cortex_contracts.documents import GgufTensorShare
from cortex_gguf_inspector.ggml import FILE_TYPE_LABELS, GUESSED_FILE_TYPE, TENSOR_TYPES
from cortex_gguf_inspector.header import ArrayValue, Header, TensorInfo

ENCODERS = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llama-embed",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "t5encoder",
    }
)
DECLARED_KINDS = MappingProxyType(
    {"adapter": "lora", "mmproj": "mmproj", "imatrix": "imatrix", "vocab": "vocab", "clip-vision": "mmproj"}
)
POOLING = MappingProxyType({0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"})
EXPERTS = re.compile(r"blk\.\d+\.ffn_(?:gate|up|down|gate_up)(?:_exps\.|\.\d+\.)")
MAX_LAYERS = 4_096

WINDOW_PERIODS = MappingProxyType(
    {
        "afmoe": 4,
        "cohere2": 4,
        "exaone4": 4,
        "gemma-embedding": 6,
        "gemma2": 2,
        "gemma3": 6,
        "gemma3n": 5,
        "gpt-oss": 2,
        "llama4": 4,
        "olmo2": 4,
        "plamo3": 8,
    }
)
"""Architectures whose every n-th layer sees the whole context and the others a window."""
FULL_FIRST_PERIODS = MappingProxyType({"cohere2moe": 4, "modern-bert": 3, "smallthinker": 4})
"""The same, but the first of n layers sees the whole context."""


def kind_of(first: Header, architecture: str, headers: Sequence[Header]) -> str:
    """`model`, `encoder`, `mmproj`, `lora`, `vocab` or `imatrix`."""
    declared = DECLARED_KINDS.get(first.text("general.type") or "")
    if architecture == "clip":
        return "mmproj"
    if declared is not None:
        return declared
    if not any(tensor.elements for header in headers for tensor in header.tensors):
        return "vocab"
    return "encoder" if architecture in ENCODERS else "model"


def number_of(header: Header, key: str) -> int | None:
    """An integer, or the largest of a per-layer array (hybrid models have one head count per layer)."""
    return max(numbers_of(header, key), default=header.integer(key))


def numbers_of(header: Header, key: str) -> tuple[int, ...]:
    """The integers of an array that was kept whole; empty for anything else."""
    value = header.metadata.get(key)
    if not isinstance(value, ArrayValue) or len(value.head) != value.count:
        return ()
    return tuple(item for item in value.head if isinstance(item, int) and not isinstance(item, bool))


def real_of(header: Header, key: str) -> float | None:
    """The value of a numeric key as a finite float."""
    value = header.metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None


def tensor_mix(tensors: Iterable[TensorInfo]) -> tuple[GgufTensorShare, ...]:
    """Tensor types by bytes, largest first."""
    totals: dict[int, tuple[int, int, int]] = {}
    for tensor in tensors:
        count, elements, size = totals.get(tensor.type_id, (0, 0, 0))
        totals[tensor.type_id] = (count + 1, elements + tensor.elements, size + tensor.size)
    shares = (
        GgufTensorShare(type=TENSOR_TYPES[type_id].label, tensors=count, parameters=elements, bytes=size)
        for type_id, (count, elements, size) in totals.items()
    )
    return tuple(sorted(shares, key=lambda share: (-share.bytes, share.type)))


def file_type(header: Header) -> tuple[str | None, bool]:
    """The label the file gives itself, and whether its converter guessed it."""
    value = header.integer("general.file_type")
    if value is None or value < 0:
        return None, False
    return FILE_TYPE_LABELS.get(value & ~GUESSED_FILE_TYPE), bool(value & GUESSED_FILE_TYPE)


def active_parameters(first: Header, architecture: str, tensors: Sequence[TensorInfo]) -> int | None:
    """Parameters that one token uses; None without experts or when their counts make no sense."""
    experts = number_of(first, f"{architecture}.expert_count") or 0
    used = number_of(first, f"{architecture}.expert_used_count") or 0
    if not 0 < used <= experts:
        return None
    total = sum(tensor.elements for tensor in tensors)
    in_experts = sum(tensor.elements for tensor in tensors if EXPERTS.match(tensor.name))
    embedding = {tensor.name: tensor.elements for tensor in tensors if tensor.name in _EMBEDDINGS}
    lookup = embedding.get("token_embd.weight", 0) if "output.weight" in embedding else 0
    return total - lookup - in_experts * (experts - used) // experts


_EMBEDDINGS = frozenset({"token_embd.weight", "output.weight"})


def window_layers(header: Header, architecture: str) -> tuple[bool, ...]:
    """Which layers have a sliding window; empty when none has or the pattern is not known."""
    layers = header.integer(f"{architecture}.block_count") or 0
    if not header.integer(f"{architecture}.attention.sliding_window") or not 0 < layers <= MAX_LAYERS:
        return ()
    pattern = header.metadata.get(f"{architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, ArrayValue):
        return tuple(bool(item) for item in pattern.head[:layers]) if len(pattern.head) >= layers else ()
    own = header.integer(f"{architecture}.attention.sliding_window_pattern")
    if architecture in FULL_FIRST_PERIODS:
        period = own or FULL_FIRST_PERIODS[architecture]
        return tuple(layer % period != 0 for layer in range(layers))
    period = own or WINDOW_PERIODS.get(architecture, 0)
    return tuple(layer % period < period - 1 for layer in range(layers)) if period > 0 else ()


def head_width(header: Header, architecture: str, which: str) -> int | None:
    """`key` or `value` length of a head, in elements; the embedding divided by the heads unless the file says."""
    said = header.integer(f"{architecture}.attention.{which}_length")
    if said is not None:
        return said
    heads = number_of(header, f"{architecture}.attention.head_count")
    width = header.integer(f"{architecture}.embedding_length")
    return width // heads if heads and width else None


def projector(header: Header) -> tuple[str | None, tuple[str, ...]]:
    """Type of a multimodal projector and what it encodes."""
    names = ("clip.projector_type", "clip.vision.projector_type", "clip.audio.projector_type")
    said = next((text for name in names if (text := header.text(name)) is not None), None)
    has = {"image": "clip.has_vision_encoder", "audio": "clip.has_audio_encoder"}
    return said, tuple(what for what, key in has.items() if header.metadata.get(key) is True)


def template_names(header: Header) -> tuple[str, ...]:
    """Names of the templates beside the default one."""
    names = header.metadata.get("tokenizer.chat_templates")
    if not isinstance(names, ArrayValue):
        return ()
    return tuple(name for name in names.head if isinstance(name, str))
