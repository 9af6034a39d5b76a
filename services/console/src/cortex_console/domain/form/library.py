"""What lies in the models folder, and what a model made of it begins with."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from cortex_console.domain.formatting import bytes_text, count_text
from cortex_console.domain.shapes import Row, number, row, rows, text, whole
from cortex_console.domain.states import Tone

SHOWN_CONTEXT = 8192
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_KINDS = {
    "embedding": "Embeddings",
    "mmproj": "Projector",
    "adapter": "LoRA adapter",
    "vocab": "Vocabulary only",
    "imatrix": "Importance matrix",
    "unknown": "Unknown",
}


@dataclass(frozen=True, slots=True)
class LibraryEntry:
    """One model file, set of files, or folder."""

    path: str
    format: str
    kind: str
    state: str
    reason: str
    code: str
    size: int
    name: str
    architecture: str
    parameters: int | None
    active: int | None
    quantization: str
    bits: float | None
    quality: str
    context: int | None
    capabilities: tuple[str, ...]
    license: str
    parts: tuple[int, int] | None
    """Present and expected."""
    engines: Mapping[str, tuple[bool, str]]
    family: str
    recommended: bool
    recommendation: str
    mmproj: tuple[str, ...]
    drafts: tuple[str, ...]
    hints: tuple[str, ...]

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one entry of `GET /admin/gguf/scan`."""
        parts = row(answer.get("parts"))
        bits, parameters = number(answer.get("bits_per_weight")), number(answer.get("parameters"))
        return cls(
            path=text(answer.get("path")),
            format=text(answer.get("format")),
            kind=text(answer.get("kind")),
            state=text(answer.get("state")),
            reason=text(answer.get("reason")),
            code=text(answer.get("code")),
            size=whole(answer.get("size")),
            name=text(answer.get("name")),
            architecture=text(answer.get("architecture")),
            parameters=int(parameters) if parameters else None,
            active=whole(answer.get("parameters_active")) or None,
            quantization=text(answer.get("quantization")),
            bits=bits,
            quality=text(answer.get("quality")),
            context=whole(answer.get("context_length")) or None,
            capabilities=tuple(answer.get("capabilities") or ()),
            license=text(answer.get("license")),
            parts=(whole(parts.get("present")), whole(parts.get("expected"))) if parts else None,
            engines={
                text(fit.get("engine")): (bool(fit.get("suits")), text(fit.get("reason")))
                for fit in rows(answer.get("engines"))
            },
            family=text(answer.get("family")),
            recommended=bool(answer.get("recommended")),
            recommendation=text(answer.get("recommendation")),
            mmproj=tuple(answer.get("mmproj") or ()),
            drafts=tuple(answer.get("drafts") or ()),
            hints=tuple(answer.get("hints") or ()),
        )

    @property
    def engine(self) -> str | None:
        """The engine that suits; None when none does."""
        return next((name for name, (suits, _) in self.engines.items() if suits), None)

    @property
    def usable(self) -> bool:
        """Whether a model can be made of it."""
        return self.state == "ready" and self.kind in ("model", "embedding") and self.engine is not None

    @property
    def why(self) -> str:
        """Why this engine, or why none."""
        if self.engine is not None and self.usable:
            return self.engines[self.engine][1]
        if self.reason:
            return self.reason
        if self.state == "pending":
            return "Not read yet: look again in a moment."
        if self.kind not in ("model", "embedding"):
            return f"{_KINDS.get(self.kind, self.kind)}: goes with a model, is none itself."
        return "; ".join(said for _, said in self.engines.values()) or "No engine serves it."

    @property
    def status(self) -> tuple[str, Tone]:
        """A word and its tone."""
        if self.state == "incomplete":
            return "incomplete", Tone.WARN
        if self.state == "rejected":
            return "unusable", Tone.BAD
        if self.state == "pending":
            return "not read yet", Tone.BUSY
        if self.parts is not None and self.parts[1] > 1:
            return f"{self.parts[0]} of {self.parts[1]} parts", Tone.GOOD
        return ("ready", Tone.GOOD) if self.usable else (_KINDS.get(self.kind, "no model").lower(), Tone.NEUTRAL)

    @property
    def facts(self) -> str:
        """What it is, in one line."""
        bits = f"{self.quantization} ({self.bits:.1f} bits)" if self.bits else self.quantization
        size = count_text(self.parameters).replace("G", "B") if self.parameters else ""
        if size and self.active:
            size += f" ({count_text(self.active).replace('G', 'B')} active)"
        context = f"{self.context:,} tokens" if self.context else ""
        return " · ".join(part for part in (self.architecture, size, bits, context, bytes_text(self.size)) if part)

    def matches(self, search: str) -> bool:
        """Whether a list that is searched shows it."""
        words = f"{self.path} {self.name} {self.architecture} {self.quantization}".lower()
        return all(word in words for word in search.lower().split())


def ordered(entries: Iterable[LibraryEntry]) -> list[LibraryEntry]:
    """What can be used first, the recommended of a family before its others."""
    return sorted(entries, key=lambda one: (not one.usable, not one.recommended, one.path.lower()))


def name_for(path: str, taken: Collection[str] = ()) -> str:
    """A name for a model made of a file, one that no other model has."""
    stem = path.rstrip("/").rpartition("/")[2]
    stem = _SPLIT.sub("", stem.removesuffix(".gguf").removesuffix(".GGUF")) or "model"
    used = {one.lower() for one in taken}
    name, count = stem[:120], 2
    while name.lower() in used or slug(name) in used:
        name, count = f"{stem[:116]}-{count}", count + 1
    return name


def slug(name: str) -> str:
    """The served name that the registry makes of a name."""
    kept = "".join(character if character.isascii() and character.isalnum() else "-" for character in name.lower())
    return "-".join(part for part in kept.split("-") if part)[:128]


def beginning(entry: LibraryEntry, advice: Row, taken: Collection[str]) -> dict[str, Any]:
    """What a new model of this entry begins with: the engine's defaults, unless the model or the host has not so much.

    Args:
        entry: what it is made of.
        advice: `settings` of a recommendation by name, empty when there is none.
        taken: names and served names of the models there are.
    """
    given: dict[str, Any] = {"name": name_for(entry.path, taken), "local_path": entry.path}
    if entry.kind == "embedding":
        given["task"] = "embed"
    wishes = [wish for wish in (advice.get("context_size"), entry.context) if isinstance(wish, int) and wish > 0]
    least = min(wishes, default=SHOWN_CONTEXT)
    if entry.engine == "llamacpp" and least < SHOWN_CONTEXT:
        given["context_size"] = least
    return given
