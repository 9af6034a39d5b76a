"""What a model takes of each device, and what would fit better."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from cortex_console.domain.form.fields import FormField, Widget, label_of
from cortex_console.domain.form.library import LibraryEntry
from cortex_console.domain.formatting import bytes_text
from cortex_console.domain.shapes import Row, number, row, rows, text, whole
from cortex_console.domain.states import Tone

PARTS = (("weights", "Weights"), ("kv", "KV cache"), ("compute", "Compute"), ("other", "Other"))
_SAME = {("cache_type_k", "f16"), ("cache_type_v", "f16")}
"""What the engine does anyhow when nothing is set."""


@dataclass(frozen=True, slots=True)
class Device:
    """Bytes on one device."""

    name: str
    parts: Mapping[str, int]
    total: int
    free: int | None
    fits: bool | None
    layers: int

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read one device of an estimate."""
        parts = {name: whole(answer.get(name)) for name, _ in PARTS}
        parts["other"] += whole(answer.get("output"))
        free = number(answer.get("free"))
        return cls(
            name=text(answer.get("device")),
            parts=parts,
            total=whole(answer.get("total")),
            free=int(free) if free is not None else None,
            fits=answer.get("fits"),
            layers=whole(answer.get("layers")),
        )

    @property
    def scale(self) -> int:
        """What the whole width of a bar stands for."""
        return max(self.total, self.free or 0, 1)

    @property
    def title(self) -> str:
        """Its name as people say it."""
        return "Host memory" if self.name == "CPU" else self.name.replace("GPU", "GPU ", 1)

    @property
    def summary(self) -> str:
        """`1.3 GiB of 19.8 GiB free`."""
        free = f" of {bytes_text(self.free)} free" if self.free is not None else ""
        return bytes_text(self.total) + free


@dataclass(frozen=True, slots=True)
class Proposal:
    """A setting that would fit, and why."""

    setting: str
    value: Any
    reason: str

    @property
    def label(self) -> str:
        """What would be set."""
        return f"{label_of(self.setting)}: {self.value}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Memory of a model with its options."""

    known: bool
    reason: str
    devices: tuple[Device, ...]
    total: int
    fits: bool | None
    context: int | None
    per_slot: int | None
    per_token: int | None
    largest: int | None
    concurrency: float | None
    proposals: tuple[Proposal, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read an estimate."""
        return cls(
            known=bool(answer.get("known")),
            reason=text(answer.get("reason")),
            devices=tuple(Device.of(one) for one in rows(answer.get("devices"))),
            total=whole(answer.get("total")),
            fits=answer.get("fits"),
            context=_whole_or_none(answer.get("context_size")),
            per_slot=_whole_or_none(answer.get("context_per_slot")),
            per_token=_whole_or_none(answer.get("kv_bytes_per_token")),
            largest=_whole_or_none(answer.get("largest_context")),
            concurrency=number(answer.get("max_concurrency")),
            proposals=proposals_of(answer.get("proposals")),
            warnings=tuple(answer.get("warnings") or ()),
        )

    @property
    def verdict(self) -> tuple[str, Tone]:
        """Whether it fits, in a word."""
        if self.fits is None:
            return "not known", Tone.NEUTRAL
        return ("fits", Tone.GOOD) if self.fits else ("does not fit", Tone.BAD)

    def facts(self) -> dict[str, str]:
        """Figures beside the bars."""
        found = {"Together": bytes_text(self.total) + ("" if self.known else " or more")}
        if self.largest is not None:
            found["Largest context that fits"] = f"{self.largest:,} tokens" if self.largest else "none"
        if self.per_slot is not None:
            found["Context of one request"] = f"{self.per_slot:,} tokens"
        if self.per_token is not None:
            found["KV cache of a token"] = bytes_text(self.per_token)
        if self.concurrency is not None:
            found["Full-length requests at once"] = f"{self.concurrency:.1f}"
        return found


def proposals_of(answers: object) -> tuple[Proposal, ...]:
    """Read proposals, or the settings of a recommendation; the engine is no setting."""
    found = [Proposal(text(one.get("setting")), one.get("value"), text(one.get("reason"))) for one in rows(answers)]
    return tuple(one for one in found if one.setting != "engine_type")


def settled(proposal: Proposal, field: FormField) -> Any:
    """The value that a proposal means for a field."""
    if field.widget is Widget.SWITCH or (field.choices and isinstance(field.choices[-1][0], bool)):
        return proposal.value in ("on", "true", 1, True)
    return proposal.value


def useful(proposals: Iterable[Proposal], fields: Mapping[str, FormField], values: Mapping[str, Any]) -> list[Proposal]:
    """Those that would change something."""
    return [
        one
        for one in proposals
        if one.setting in fields
        and settled(one, fields[one.setting]) != values.get(one.setting)
        and not ((one.setting, one.value) in _SAME and values.get(one.setting) is None)
    ]


def beside(entry: LibraryEntry) -> tuple[Proposal, ...]:
    """Files in the models folder that go with this one."""
    found: list[Proposal] = []
    if entry.mmproj:
        found.append(Proposal("mmproj_path", entry.mmproj[0], "it fits this model, which then reads images or audio"))
    if entry.drafts:
        said = "much smaller with the same tokenizer: it drafts tokens, so that answers come sooner"
        found.append(Proposal("draft_model_path", entry.drafts[0], said))
    return tuple(found)


def largest(estimate: Estimate, engine: str) -> Proposal | None:
    """The largest context that fits, where it is another one than now."""
    if not estimate.largest or estimate.largest == estimate.context:
        return None
    setting = "max_model_len" if engine == "vllm" else "context_size"
    return Proposal(setting, estimate.largest, "the largest context that fits")


def advice(answers: object) -> dict[str, Any]:
    """The settings of a recommendation by name."""
    return {one.setting: one.value for one in proposals_of(answers)}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a dry run told."""

    estimate: Estimate | None
    estimate_reason: str
    argv: Sequence[str]
    command_reason: str
    fits: bool | None
    placement: str
    evicts: int
    warnings: tuple[tuple[str, str], ...]
    """Field (or empty) and message."""
    served_name: str

    @classmethod
    def of(cls, answer: Row) -> Self:
        """Read the answer of a dry run."""
        command, placement = row(answer.get("command")), row(answer.get("placement"))
        estimate = row(answer.get("estimate"))
        program = text(command.get("image"))
        return cls(
            estimate=Estimate.of(estimate) if estimate else None,
            estimate_reason=text(answer.get("estimate_reason")),
            argv=(*((program,) if program else ()), *(command.get("argv") or ())) if command else (),
            command_reason=text(answer.get("command_reason")),
            fits=placement.get("fits") if placement else None,
            placement=text(placement.get("reason")) or text(answer.get("placement_reason")),
            evicts=len(placement.get("evicts") or ()),
            warnings=tuple((text(one.get("field")), text(one.get("message"))) for one in rows(answer.get("warnings"))),
            served_name=text(answer.get("served_model_name")),
        )


def _whole_or_none(value: object) -> int | None:
    found = number(value)
    return int(found) if found is not None else None
