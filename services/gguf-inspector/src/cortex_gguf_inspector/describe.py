"""From checked headers to the document that everybody reads. Pure."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from cortex_contracts.documents import GgufDocumentV1
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.ggml import FILE_TYPE_LABELS, GUESSED_FILE_TYPE, TENSOR_TYPES
from cortex_gguf_inspector.header import ArrayValue, Header

ARCHITECTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MAX_NAME = 256
NOT_MODELS = {
    "adapter": "a LoRA adapter: deploy the base model and give this file as its adapter",
    "mmproj": "a multimodal projector: deploy the language model and give this file as its projector",
    "imatrix": "an importance matrix, used to quantize a model",
    "vocab": "a vocabulary without weights",
}


def describe(path: str, headers: Sequence[Header]) -> GgufDocumentV1:
    """Describe a model by the headers of its parts in order (one for a model in one file).

    Raises:
        GgufError: `gguf_corrupt` without an architecture, `gguf_not_a_model` for an adapter, a projector or no weights.
    """
    first = headers[0]
    architecture = _architecture(first)
    _check_is_model(first, architecture, headers)
    parameters = sum(tensor.elements for header in headers for tensor in header.tensors)
    tensor_bytes = sum(tensor.size for header in headers for tensor in header.tensors)
    return GgufDocumentV1(
        aggregateversion=0,
        identity=_identity(headers),
        path=path,
        file_size=sum(header.file_size for header in headers),
        gguf_version=first.version,
        architecture=architecture,
        name=_printable(first.text("general.name")),
        parameters=parameters,
        quantization=_quantization(first, headers),
        bits_per_weight=round(tensor_bytes * 8 / parameters, 3),
        context_length=_number(first, f"{architecture}.context_length"),
        embedding_length=_number(first, f"{architecture}.embedding_length"),
        block_count=_number(first, f"{architecture}.block_count"),
        head_count=_number(first, f"{architecture}.attention.head_count"),
        head_count_kv=_number(first, f"{architecture}.attention.head_count_kv"),
        expert_count=_number(first, f"{architecture}.expert_count"),
        vocab_size=_vocabulary(first, architecture),
        chat_template=bool(first.text("tokenizer.chat_template")),
        tensor_count=sum(len(header.tensors) for header in headers),
        split_count=len(headers),
    )


def _architecture(header: Header) -> str:
    architecture = header.text("general.architecture")
    if architecture is None:
        message = "the file has no general.architecture: it is no model, or its conversion failed"
        raise GgufError(GgufErrorCode.CORRUPT, message)
    if ARCHITECTURE.fullmatch(architecture) is None:
        raise GgufError(GgufErrorCode.CORRUPT, f"general.architecture is {architecture[:64]!a}, which is no name")
    return architecture


def _check_is_model(first: Header, architecture: str, headers: Sequence[Header]) -> None:
    kind = first.text("general.type") or ""
    if architecture == "clip":
        kind = "mmproj"
    elif not any(tensor.elements for header in headers for tensor in header.tensors):
        kind = "vocab"
    if kind in NOT_MODELS:
        raise GgufError(GgufErrorCode.NOT_A_MODEL, f"the file is {NOT_MODELS[kind]}")


def _identity(headers: Sequence[Header]) -> str:
    if len(headers) == 1:
        return headers[0].digest.hex()
    return hashlib.sha256(b"".join(header.digest for header in headers)).hexdigest()


def _quantization(first: Header, headers: Sequence[Header]) -> str:
    file_type = first.integer("general.file_type")
    if file_type is not None and (label := FILE_TYPE_LABELS.get(file_type & ~GUESSED_FILE_TYPE)) is not None:
        return label
    sizes: Counter[int] = Counter()
    for header in headers:
        for tensor in header.tensors:
            sizes[tensor.type_id] += tensor.size
    return TENSOR_TYPES[sizes.most_common(1)[0][0]].label


def _number(header: Header, key: str) -> int | None:
    """An integer, or the largest of a per-layer array (hybrid models have one head count per layer)."""
    value = header.metadata.get(key)
    if isinstance(value, ArrayValue):
        numbers = [item for item in value.head if isinstance(item, int) and not isinstance(item, bool)]
        return max(numbers, default=None)
    return header.integer(key)


def _vocabulary(header: Header, architecture: str) -> int | None:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return tokens.count if isinstance(tokens, ArrayValue) else header.integer(f"{architecture}.vocab_size")


def _printable(text: str | None) -> str | None:
    """Fit for a terminal and for JSON: a file's author chooses the name, so no control characters and no half code points."""
    if text is None:
        return None
    clean = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return clean[:MAX_NAME]
