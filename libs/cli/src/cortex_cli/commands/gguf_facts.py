"""What a GGUF file says, for people."""

from cortex_cli.output import size
from cortex_contracts.documents import GgufDocumentV1

Facts = dict[str, object]


def facts(document: GgufDocumentV1) -> Facts:
    """Rows to read from top to bottom; what the file does not say is left out. `--json` has every field."""
    rows: Facts = {
        "file": document.path,
        "what": f"{document.kind}, {document.architecture} architecture",
        "name": document.name,
        "size": _size(document),
        "parameters": _parameters(document),
        "quantization": f"{document.quantization}, {document.bits_per_weight:.2f} bits per weight",
        "tensors": _mix(document),
        "context": _unit(document.context_length, "tokens"),
        "layers": _layers(document),
        "attention": _attention(document),
        "experts": _experts(document),
        "vocabulary": _vocabulary(document),
        "chat template": _template(document),
        "licence": document.license,
        "identity": document.identity,
    }
    return {name: value for name, value in rows.items() if value}


def _unit(number: int | None, unit: str) -> str | None:
    return None if number is None else f"{number:,} {unit}"


def _size(document: GgufDocumentV1) -> str:
    parts = f" in {document.split_count} parts" if document.split_count > 1 else ""
    return f"{size(document.file_size)}{parts}, GGUF version {document.gguf_version}"


def _parameters(document: GgufDocumentV1) -> str:
    active = document.parameters_active
    used = f", {active / 1e9:.2f} B used for a token" if active and active != document.parameters else ""
    return f"{document.parameters / 1e9:.2f} B{used}"


def _mix(document: GgufDocumentV1) -> str:
    total = sum(share.bytes for share in document.quantization_mix) or 1
    shares = (f"{share.type} {share.bytes / total:.0%} ({share.tensors})" for share in document.quantization_mix)
    return f"{document.tensor_count}: {', '.join(shares)}"


def _layers(document: GgufDocumentV1) -> str | None:
    if document.block_count is None:
        return None
    width = "" if document.embedding_length is None else f", {document.embedding_length:,} wide"
    return f"{document.block_count}{width}"


def _attention(document: GgufDocumentV1) -> str | None:
    if document.head_count is None:
        return None
    shared = "" if document.head_count_kv is None else f", {document.head_count_kv} for keys and values"
    window = "" if document.sliding_window is None else f", sliding window of {document.sliding_window:,}"
    return f"{document.head_count} heads{shared}{window}"


def _experts(document: GgufDocumentV1) -> str | None:
    if not document.expert_count:
        return None
    used = "" if document.expert_used_count is None else f", {document.expert_used_count} used for a token"
    return f"{document.expert_count}{used}"


def _vocabulary(document: GgufDocumentV1) -> str | None:
    if document.vocab_size is None:
        return None
    names = "/".join(name for name in (document.tokenizer_model, document.tokenizer_pre) if name)
    return f"{document.vocab_size:,} tokens" + (f" ({names})" if names else "")


def _template(document: GgufDocumentV1) -> str:
    if not document.chat_template:
        return "none"
    return ", ".join(document.chat_capabilities) or "yes"
