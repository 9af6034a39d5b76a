"""Reads one unit and says what it is. Blocks on the file system; never raises for what it finds there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from types import MappingProxyType

from cortex_contracts.documents import GgufDocumentV1
from cortex_contracts.enums import EngineType
from cortex_contracts.library import EngineFitV1, EntryFormat, EntryKind, EntryState, LibraryEntryV1, PartsV1
from cortex_gguf_inspector.describe import describe_any
from cortex_gguf_inspector.errors import GgufError, GgufErrorCode, unreadable
from cortex_gguf_inspector.header import ArrayValue, Header
from cortex_gguf_inspector.inspect import check_not_concatenated, data_end, read_file
from cortex_gguf_inspector.library.quality import quality
from cortex_gguf_inspector.library.safetensors import HubFolder, folder_name, read_folder
from cortex_gguf_inspector.library.units import Unit, UnitKind
from cortex_gguf_inspector.limits import Limits
from cortex_gguf_inspector.merge.prepare import join_sources, read_joined
from cortex_gguf_inspector.paths import ModelsRoot
from cortex_gguf_inspector.splits import SHOWN_NAMES, compare_parts, missing_parts, split_of

VLLM_ON_GGUF = "vLLM reads no GGUF files by itself; use llama.cpp, or the safetensors of the model"
KINDS: Mapping[str, EntryKind] = MappingProxyType(
    {
        "model": EntryKind.MODEL,
        "encoder": EntryKind.EMBEDDING,
        "mmproj": EntryKind.MMPROJ,
        "lora": EntryKind.ADAPTER,
        "vocab": EntryKind.VOCAB,
        "imatrix": EntryKind.IMATRIX,
    }
)
USES: Mapping[EntryKind, str] = MappingProxyType(
    {
        EntryKind.MMPROJ: "a multimodal projector: give it with its language model",
        EntryKind.ADAPTER: "a LoRA adapter: give it with its base model",
        EntryKind.VOCAB: "a vocabulary without weights",
        EntryKind.IMATRIX: "an importance matrix, used to quantize a model",
    }
)


@dataclass(frozen=True, slots=True)
class Traits:
    """What decides which entries belong together; not for display."""

    tokenizer: tuple[object, ...] | None = None
    embedding_length: int | None = None
    projection: tuple[int, ...] = ()
    """Widths that a projector gives out."""
    shape: tuple[object, ...] | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """An entry without its relations; `document` for what the bucket `gguf` shall hold."""

    entry: LibraryEntryV1
    document: GgufDocumentV1 | None = None
    traits: Traits = Traits()


def examine(models: ModelsRoot, unit: Unit, limits: Limits) -> Examined:
    """Say what a unit is: a refusal is an entry too."""
    try:
        if unit.kind is UnitKind.SAFETENSORS:
            return _safetensors(unit, read_folder(models, unit))
        if unit.kind is UnitKind.SPLIT:
            return _split(models, unit, limits)
        if unit.kind is UnitKind.JOINED:
            return _joined(models, unit, limits)
        header = read_file(models, unit.path, limits)
        check_not_concatenated(models, unit.path, header)
        split_of(unit.path.name, header, limits.split_parts)
        return _gguf(unit, [header], None)
    except GgufError as error:
        return _refused(unit, error)
    except OSError as error:
        return _refused(unit, unreadable(unit.path.name, error))


def pending(unit: Unit) -> Examined:
    """A unit that there was no time for."""
    entry = LibraryEntryV1(
        path=str(unit.path),
        format=EntryFormat.SAFETENSORS if unit.kind is UnitKind.SAFETENSORS else EntryFormat.GGUF,
        kind=EntryKind.UNKNOWN,
        state=EntryState.PENDING,
        reason="not read yet: the time for the scan was over; the next scan goes on",
        size=unit.size,
        files=len(unit.files),
    )
    return Examined(entry)


def _refused(unit: Unit, error: GgufError, parts: PartsV1 | None = None) -> Examined:
    incomplete = error.reason in (GgufErrorCode.SPLIT_INCOMPLETE, GgufErrorCode.TRUNCATED)
    hints: tuple[str, ...] = ()
    if error.reason is GgufErrorCode.SPLIT_CONCATENATED:
        parts = PartsV1(layout="concatenated", expected=1, present=1)
        hints = ("`cortex gguf merge` makes one valid file of it",)
    found = pending(unit).entry.model_copy(
        update={
            "state": EntryState.INCOMPLETE if incomplete else EntryState.REJECTED,
            "code": error.code,
            "reason": error.message,
            "parts": parts,
            "hints": hints,
        }
    )
    return Examined(found)


def _split(models: ModelsRoot, unit: Unit, limits: Limits) -> Examined:
    split = unit.split
    assert split is not None
    if split.count > limits.split_parts:
        message = f"the model is split into {split.count} parts; the limit is {limits.split_parts}"
        return _refused(unit, GgufError(GgufErrorCode.LIMIT_EXCEEDED, message))
    there = {file.path.name for file in unit.files}
    missing = [name for n in range(1, split.count + 1) if (name := split.name_of(n)) not in there]
    headers, damaged = _read_parts(models, unit, limits)
    report = compare_parts(split, headers)
    parts = PartsV1(
        layout="split",
        expected=split.count,
        present=len(there),
        missing=tuple(missing[:SHOWN_NAMES]),
        foreign=dict(report.foreign),
        tensors=report.tensors,
        tensors_expected=report.tensors_expected,
    )
    if damaged is not None:
        return _refused(unit, damaged, parts)
    if missing:
        return _refused(unit, missing_parts(missing, split.count), parts)
    if report.problem is not None:
        message = f"{report.problem}: parts of two models are mixed"
        return _refused(unit, GgufError(GgufErrorCode.CORRUPT, message), parts)
    return _gguf(unit, [headers[n] for n in sorted(headers)], parts)


def _read_parts(models: ModelsRoot, unit: Unit, limits: Limits) -> tuple[dict[int, Header], GgufError | None]:
    """The headers that can be read, and the first refusal."""
    assert unit.split is not None
    headers: dict[int, Header] = {}
    damaged: GgufError | None = None
    tensors = limits.tensors
    names = {unit.split.name_of(n): n for n in range(1, unit.split.count + 1)}
    for file in sorted(unit.files, key=lambda file: file.path):
        try:
            header = read_file(models, file.path, replace(limits, tensors=max(tensors, 0)))
            check_not_concatenated(models, file.path, header)
        except GgufError as error:
            concatenated = error.reason is GgufErrorCode.SPLIT_CONCATENATED
            damaged = damaged or (error if concatenated else error.about_part(file.path.name))
            continue
        tensors -= len(header.tensors)
        headers[names[file.path.name]] = header
    return headers, damaged


def _joined(models: ModelsRoot, unit: Unit, limits: Limits) -> Examined:
    sources = join_sources(models, unit.path, limits)
    header = read_joined(models, sources, limits)
    parts = PartsV1(layout="joined", expected=len(sources), present=len(sources), tensors=len(header.tensors))
    found = _gguf(replace(unit, path=PurePosixPath(sources[0].path)), [header], parts)
    hint = "no engine reads the pieces: `cortex gguf merge` joins them"
    entry = found.entry.model_copy(
        update={
            "engines": tuple(fit.model_copy(update={"suits": False, "reason": hint}) for fit in found.entry.engines),
            "hints": (*found.entry.hints, hint),
        }
    )
    return replace(found, entry=entry, document=None)


def _gguf(unit: Unit, headers: Sequence[Header], parts: PartsV1 | None) -> Examined:
    document = describe_any(str(unit.path), headers)
    kind = KINDS.get(document.kind, EntryKind.UNKNOWN)
    deployable = kind in (EntryKind.MODEL, EntryKind.EMBEDDING)
    use = "" if deployable else USES.get(kind, f"a file of kind {document.kind}")
    entry = LibraryEntryV1(
        path=str(unit.path),
        format=EntryFormat.GGUF,
        kind=kind,
        state=EntryState.READY,
        reason=use,
        size=unit.size,
        files=len(unit.files),
        identity=document.identity,
        name=document.name,
        architecture=document.architecture,
        parameters=document.parameters,
        parameters_active=document.parameters_active,
        quantization=document.quantization,
        bits_per_weight=document.bits_per_weight,
        quality=quality(document.quantization) if deployable else "",
        context_length=document.context_length,
        vocab_size=document.vocab_size,
        capabilities=document.chat_capabilities,
        license=document.license,
        parts=parts,
        engines=(
            EngineFitV1(engine=EngineType.LLAMACPP, suits=deployable, reason=use or _llamacpp(parts)),
            EngineFitV1(engine=EngineType.VLLM, suits=False, reason=VLLM_ON_GGUF),
        ),
        hints=_hints(headers, document, kind),
    )
    widths = (headers[0].integer("clip.vision.projection_dim"), headers[0].integer("clip.audio.projection_dim"))
    traits = Traits(
        tokenizer=_tokenizer(headers[0]),
        embedding_length=document.embedding_length,
        projection=tuple(width for width in widths if width is not None),
        shape=(document.parameters, document.block_count, document.embedding_length, document.vocab_size),
    )
    return Examined(entry, document, traits)


def _llamacpp(parts: PartsV1 | None) -> str:
    if parts is None:
        return "a GGUF file"
    return (
        f"a GGUF file in {parts.expected} parts: llama-server is given part 1 and finds the others, no merge is needed"
    )


def _hints(headers: Sequence[Header], document: GgufDocumentV1, kind: EntryKind) -> tuple[str, ...]:
    hints: list[str] = []
    last = headers[-1]
    if last.file_size - data_end(last) > max(last.alignment, 4096):
        hints.append(f"{last.file_size - data_end(last)} bytes behind the last tensor belong to nothing")
    if kind is EntryKind.MODEL and not document.chat_template:
        hints.append("has no chat template: a base model, or give one when deploying")
    if kind is EntryKind.EMBEDDING:
        hints.append("an embedding or ranking model: deploy it with task embed or rerank")
    return tuple(hints)


def _tokenizer(header: Header) -> tuple[object, ...] | None:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, ArrayValue):
        return None
    special = (header.integer(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos"))
    return (header.text("tokenizer.ggml.model"), header.text("tokenizer.ggml.pre"), tokens.count, *special)


def _shown(text: str | None) -> str | None:
    return None if text is None else "".join(letter if letter.isprintable() else "?" for letter in text)[:256]


def _safetensors(unit: Unit, folder: HubFolder) -> Examined:
    if not folder.shards:
        message = "only PyTorch pickles or an index are there: vLLM may load them, safetensors are the safe format"
        return _refused(unit, GgufError(GgufErrorCode.SPLIT_INCOMPLETE, message))
    kind = EntryKind.ADAPTER if folder.is_adapter else EntryKind.MODEL
    problem = _safetensors_problem(folder)
    state = EntryState.INCOMPLETE if problem else EntryState.READY
    suits = state is EntryState.READY and kind is EntryKind.MODEL
    reason = problem or (f"safetensors of {', '.join(folder.architectures)}" if suits else "a LoRA adapter of a model")
    entry = LibraryEntryV1(
        path=str(unit.path),
        format=EntryFormat.SAFETENSORS,
        kind=kind,
        state=state,
        code=GgufErrorCode.SPLIT_INCOMPLETE.value if problem else None,
        reason=problem,
        size=unit.size,
        files=len(unit.files),
        name=_shown(folder_name(unit.path)),
        architecture=folder.architectures[0] if folder.architectures else None,
        parameters=folder.parameters or None,
        quantization=folder.quantization,
        context_length=folder.integer("max_position_embeddings", "n_positions"),
        vocab_size=folder.integer("vocab_size"),
        engines=(
            EngineFitV1(engine=EngineType.VLLM, suits=suits, reason=reason),
            EngineFitV1(engine=EngineType.LLAMACPP, suits=False, reason="llama.cpp needs a GGUF conversion"),
        ),
    )
    return Examined(entry)


def _safetensors_problem(folder: HubFolder) -> str:
    if folder.missing:
        shown = ", ".join(folder.missing[:SHOWN_NAMES])
        return f"{len(folder.missing)} shards of the index are missing: {shown}"
    if folder.problems:
        return folder.problems[0]
    if not folder.is_adapter and not folder.architectures:
        return "config.json is missing or names no architecture: no engine knows what to make of the weights"
    return ""
