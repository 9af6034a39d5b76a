"""From checked headers to the document that everybody reads. Pure."""

import hashlib
import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from cortex_contracts.documents import GgufDocumentV1
from cortex_gguf_inspector import facts
from cortex_gguf_inspector.capabilities import template_capabilities
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode
from cortex_gguf_inspector.header import ArrayValue, Header

ARCHITECTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
MAX_NAME = 256
MAX_NAMES = 16
NOT_SERVED = MappingProxyType(
    {
        "lora": "a LoRA adapter: deploy the base model and give this file as its adapter",
        "mmproj": "a multimodal projector: deploy the language model and give this file as its projector",
        "imatrix": "an importance matrix, used to quantize a model",
        "vocab": "a vocabulary without weights",
    }
)
"""Kinds of files that no engine can serve by themselves."""


def describe(path: str, headers: Sequence[Header]) -> GgufDocumentV1:
    """Describe a model by the headers of its parts in order (one for a model in one file).

    Raises:
        GgufError: `gguf_corrupt` without an architecture, `gguf_not_a_model` for an adapter, a projector or no weights.
    """
    document = describe_any(path, headers)
    if document.kind in NOT_SERVED:
        raise GgufError(GgufErrorCode.NOT_A_MODEL, f"the file is {NOT_SERVED[document.kind]}")
    return document


def describe_any(path: str, headers: Sequence[Header]) -> GgufDocumentV1:
    """Describe whatever the headers belong to, also what cannot be served by itself; `kind` says what it is.

    Raises:
        GgufError: `gguf_corrupt` without an architecture (an importance matrix has none).
    """
    first = headers[0]
    architecture = _architecture(first)
    tensors = [tensor for header in headers for tensor in header.tensors]
    parameters = sum(tensor.elements for tensor in tensors)
    tensor_bytes = sum(tensor.size for tensor in tensors)
    label, guessed = facts.file_type(first)
    mix = facts.tensor_mix(tensors)
    dominant = mix[0].type if mix else None
    return GgufDocumentV1(
        aggregateversion=0,
        identity=_identity(headers),
        path=path,
        file_size=sum(header.file_size for header in headers),
        gguf_version=first.version,
        architecture=architecture,
        kind=facts.kind_of(first, architecture, headers),
        parameters=parameters,
        parameters_active=facts.active_parameters(first, architecture, tensors),
        tensor_bytes=tensor_bytes,
        quantization=label or dominant or "none",
        quantization_label=label,
        quantization_guessed=guessed,
        quantization_dominant=dominant,
        quantization_mix=mix,
        bits_per_weight=round(tensor_bytes * 8 / parameters, 3) if parameters else 0.0,
        tensor_count=len(tensors),
        split_count=len(headers),
        **_general(first),
        **_shape(first, architecture),
        **_tokenizer(first, architecture),
    )


def _architecture(header: Header) -> str:
    architecture = header.text("general.architecture")
    if architecture is None and header.text("general.type") == "imatrix":
        return "imatrix"
    if architecture is None:
        message = "the file has no general.architecture: it is no model, or its conversion failed"
        raise GgufError(GgufErrorCode.CORRUPT, message)
    if ARCHITECTURE.fullmatch(architecture) is None:
        raise GgufError(GgufErrorCode.CORRUPT, f"general.architecture is {architecture[:64]!a}, which is no name")
    return architecture


def _identity(headers: Sequence[Header]) -> str:
    if len(headers) == 1:
        return headers[0].digest.hex()
    return hashlib.sha256(b"".join(header.digest for header in headers)).hexdigest()


def _general(header: Header) -> dict[str, Any]:
    projector_type, modalities = facts.projector(header)
    bases = (_printable(header.text(f"general.base_model.{number}.name")) for number in range(MAX_NAMES))
    return {
        "name": _printable(header.text("general.name")),
        "basename": _printable(header.text("general.basename")),
        "size_label": _printable(header.text("general.size_label")),
        "license": _printable(header.text("general.license")),
        "base_models": tuple(base for base in bases if base),
        "projector_type": _printable(projector_type),
        "modalities": modalities,
    }


def _shape(header: Header, architecture: str) -> dict[str, Any]:
    def number(name: str) -> int | None:
        return facts.number_of(header, f"{architecture}.{name}")

    per_layer = facts.numbers_of(header, f"{architecture}.attention.head_count_kv")[: facts.MAX_LAYERS]
    pooling = number("pooling_type")
    return {
        "context_length": number("context_length"),
        "embedding_length": number("embedding_length"),
        "block_count": number("block_count"),
        "feed_forward_length": number("feed_forward_length"),
        "head_count": number("attention.head_count"),
        "head_count_kv": number("attention.head_count_kv"),
        "head_counts_kv": per_layer if len(set(per_layer)) > 1 else (),
        "key_length": facts.head_width(header, architecture, "key"),
        "value_length": facts.head_width(header, architecture, "value"),
        "expert_count": number("expert_count"),
        "expert_used_count": number("expert_used_count"),
        "expert_shared_count": number("expert_shared_count"),
        "expert_feed_forward_length": number("expert_feed_forward_length"),
        "sliding_window": number("attention.sliding_window") or None,
        "sliding_window_layers": facts.window_layers(header, architecture),
        "rope_freq_base": facts.real_of(header, f"{architecture}.rope.freq_base"),
        "rope_scaling_type": _printable(header.text(f"{architecture}.rope.scaling.type")),
        "rope_scaling_factor": facts.real_of(header, f"{architecture}.rope.scaling.factor"),
        "rope_original_context_length": number("rope.scaling.original_context_length"),
        "pooling_type": None if pooling is None else facts.POOLING.get(pooling, str(pooling)),
    }


def _tokenizer(header: Header, architecture: str) -> dict[str, Any]:
    template = header.text("tokenizer.chat_template")
    names = facts.template_names(header)[:MAX_NAMES]
    texts = [template or "", *(header.text(f"tokenizer.chat_template.{name}") or "" for name in names)]
    found = {capability for text in texts for capability in template_capabilities(text)}
    merges = header.metadata.get("tokenizer.ggml.merges")
    return {
        "vocab_size": _vocabulary(header, architecture),
        "tokenizer_model": _printable(header.text("tokenizer.ggml.model")),
        "tokenizer_pre": _printable(header.text("tokenizer.ggml.pre")),
        "tokenizer_merges": merges.count if isinstance(merges, ArrayValue) else None,
        "chat_template": bool(template),
        "chat_template_names": tuple(_printable(name) or "" for name in names),
        "chat_capabilities": tuple(sorted(found, key=CAPABILITY_ORDER.index)),
    }


CAPABILITY_ORDER = ("system", "tools", "reasoning", "image", "audio", "video")


def _vocabulary(header: Header, architecture: str) -> int | None:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return tokens.count if isinstance(tokens, ArrayValue) else header.integer(f"{architecture}.vocab_size")


def _printable(text: str | None) -> str | None:
    """Fit for a terminal and for JSON: a file's author chooses the name, so no control characters and no half code points."""
    if text is None:
        return None
    short = text[:MAX_NAME]
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in short)
