"""Sets the entries of a library in relation: families, the file to take, projectors, drafts. Pure."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from cortex_contracts.library import EntryKind, EntryState, LibraryEntryV1
from cortex_gguf_inspector.library.examine import Examined
from cortex_gguf_inspector.library.quality import preference, why_recommended

DRAFT_RATIO = 4
MAX_RELATED = 8
_QUANT = re.compile(
    r"[-._ ]+(ud-)?(i?q\d\w*|bf16|f16|f32|fp16|mxfp4\w*|nvfp4|tq\d_\d)(?=$|[-._ ])|[-._ ]\d{5}-of-\d{5}$|[-._ ]merged$",
    re.IGNORECASE,
)


def relate(found: Sequence[Examined]) -> list[LibraryEntryV1]:
    """The entries, each with what it has to do with the others."""
    ready = [one for one in found if one.entry.state is EntryState.READY]
    families: defaultdict[str, list[Examined]] = defaultdict(list)
    for one in ready:
        if (family := family_of(one)) is not None:
            families[family].append(one)
    updates: dict[str, dict[str, object]] = defaultdict(dict)
    for family, members in families.items():
        _recommend(family, members, updates)
    projectors = [one for one in ready if one.entry.kind is EntryKind.MMPROJ]
    models = [one for one in ready if one.entry.kind is EntryKind.MODEL and one.traits.tokenizer is not None]
    by_tokenizer: defaultdict[object, list[Examined]] = defaultdict(list)
    for one in models:
        by_tokenizer[one.traits.tokenizer].append(one)
    for one in models:
        updates[one.entry.path]["mmproj"] = _projectors(one, projectors)
        updates[one.entry.path]["drafts"] = _drafts(one, by_tokenizer[one.traits.tokenizer])
    return [one.entry.model_copy(update=updates.get(one.entry.path, {})) for one in found]


def family_of(one: Examined) -> str | None:
    """The same for all quantizations of one model: shape and name, without what names the quantization."""
    entry, shape = one.entry, one.traits.shape
    if shape is None or entry.kind not in (EntryKind.MODEL, EntryKind.EMBEDDING):
        return None
    name = entry.name or _stem(entry.path)
    return f"{entry.architecture}/{_bare(name)}/{'/'.join(str(part) for part in shape)}"


def _stem(path: str) -> str:
    return PurePosixPath(path).name.removesuffix(".gguf")


def _bare(name: str) -> str:
    previous = ""
    while previous != name:
        previous, name = name, _QUANT.sub("", name)
    return re.sub(r"[\s_-]+", "-", name.strip().lower())


def _recommend(family: str, members: Sequence[Examined], updates: dict[str, dict[str, object]]) -> None:
    def order(one: Examined) -> tuple[object, ...]:
        entry = one.entry
        usable = any(fit.suits for fit in entry.engines)
        pieces = entry.parts.expected if entry.parts else 1
        return (not usable, preference(entry.quantization, entry.parameters), pieces, entry.path)

    best = min(members, key=order).entry
    for one in members:
        update = updates[one.entry.path]
        update["family"] = family
        if len(members) == 1:
            continue
        if one.entry.path == best.path:
            update["recommended"] = True
            update["recommendation"] = why_recommended(best.quantization, best.parameters)
        elif one.entry.quantization == best.quantization and one.entry.bits_per_weight == best.bits_per_weight:
            update["recommendation"] = f"the same as {best.path}: one of the two can go"
        else:
            update["recommendation"] = f"{best.path} ({best.quantization}) is the better choice unless memory decides"


def _projectors(model: Examined, projectors: Iterable[Examined]) -> tuple[str, ...]:
    """Those whose output is as wide as the model's embedding; one that does not tell counts in the same folder only."""
    folder = PurePosixPath(model.entry.path).parent
    fitting: list[tuple[bool, str]] = []
    for one in projectors:
        elsewhere = PurePosixPath(one.entry.path).parent != folder
        fits = model.traits.embedding_length in one.traits.projection if one.traits.projection else not elsewhere
        if fits:
            fitting.append((elsewhere, one.entry.path))
    nearby = [path for elsewhere, path in sorted(fitting) if not elsewhere]
    return tuple((nearby or [path for _, path in sorted(fitting)])[:MAX_RELATED])


def _drafts(model: Examined, candidates: Iterable[Examined]) -> tuple[str, ...]:
    size = model.entry.parameters or 0
    small = [
        ((one.entry.parameters or 0), one.entry.path)
        for one in candidates
        if 0 < (one.entry.parameters or 0) * DRAFT_RATIO <= size and any(fit.suits for fit in one.entry.engines)
    ]
    return tuple(path for _, path in sorted(small)[:MAX_RELATED])
