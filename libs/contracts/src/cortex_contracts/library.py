"""The models library: what lies in the models directory, and the requests that scan, merge and verify it.

Sizes are bytes, durations seconds; paths are below the models root unless a command without a service made them.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from cortex_contracts.base import ContractModel, UtcDatetime
from cortex_contracts.enums import EngineType


class EntryFormat(StrEnum):
    GGUF = "gguf"
    SAFETENSORS = "safetensors"


class EntryKind(StrEnum):
    """What an entry is good for. Only `model` and `embedding` can be deployed by themselves."""

    MODEL = "model"
    EMBEDDING = "embedding"
    MMPROJ = "mmproj"
    ADAPTER = "adapter"
    VOCAB = "vocab"
    IMATRIX = "imatrix"
    UNKNOWN = "unknown"


class EntryState(StrEnum):
    """`pending`: the time budget ended before the entry was read; the next scan reads it."""

    READY = "ready"
    INCOMPLETE = "incomplete"
    REJECTED = "rejected"
    PENDING = "pending"


class PartsV1(ContractModel):
    """The files of a set. `missing` are file names, `foreign` says of a file name why it does not belong to the set."""

    layout: Literal["split", "joined", "concatenated"]
    """`split`: -00001-of-00003.gguf; `joined`: .gguf.part1of2 and the like; `concatenated`: parts put together with cat."""
    expected: int
    present: int
    missing: tuple[str, ...] = ()
    foreign: dict[str, str] = Field(default_factory=dict)
    tensors: int | None = None
    """Tensors found in all parts."""
    tensors_expected: int | None = None
    """Tensors that part 1 announces."""


class EngineFitV1(ContractModel):
    """Whether an engine can serve an entry, and why."""

    engine: EngineType
    suits: bool
    reason: str


class LibraryEntryV1(ContractModel):
    """One model, or one thing that belongs to a model. `path` is what to deploy: a file, part 1 of a set, or a folder."""

    path: str
    format: EntryFormat
    kind: EntryKind
    state: EntryState
    code: str | None = None
    """Stable code of a refusal."""
    reason: str = ""
    size: int
    """Of all files together."""
    files: int = 1
    identity: str | None = None
    """Content identity, key of the bucket `gguf`."""
    name: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    parameters_active: int | None = None
    """Parameters that one token uses; None for a model without experts."""
    quantization: str | None = None
    bits_per_weight: float | None = None
    quality: str = ""
    """What the quantization means, in a few words."""
    context_length: int | None = None
    vocab_size: int | None = None
    capabilities: tuple[str, ...] = ()
    """What the chat template handles, e.g. `tools`."""
    license: str | None = None
    parts: PartsV1 | None = None
    engines: tuple[EngineFitV1, ...] = ()
    family: str | None = None
    """Entries of one family are the same model in several quantizations."""
    recommended: bool = False
    recommendation: str = ""
    """Why this file of the family is, or is not, the one to take."""
    mmproj: tuple[str, ...] = ()
    """Projectors that fit this model."""
    drafts: tuple[str, ...] = ()
    """Much smaller models with the same tokenizer: candidates for speculative decoding."""
    hints: tuple[str, ...] = ()


class ScanRequestV1(ContractModel):
    """List the library. `refresh` looks at the disk now; else the last scan answers, when it is recent."""

    path: str = "."
    """Only what lies in this folder and below."""
    refresh: bool = False
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=200, ge=1, le=500)


class LibraryV1(ContractModel):
    """One page of the library, by path. `total` counts the entries of all pages."""

    entries: tuple[LibraryEntryV1, ...] = ()
    total: int
    total_bytes: int
    scanned_at: UtcDatetime
    seconds: float
    complete: bool = True
    """False when a bound of the scan was reached; `notes` says which."""
    notes: tuple[str, ...] = ()


class MergeRequestV1(ContractModel):
    """Make one GGUF file of a split set. Asked again, it tells the progress and starts nothing twice."""

    path: str
    """Any part of the set, or a folder with one set."""
    output: str | None = None
    """File to write; without it the service chooses. An existing file is never replaced."""


class MergeState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class MergeStartedV1(ContractModel):
    """The answer to a merge request, sent before the work is done; `gguf.merging` and `.merged` events follow."""

    job: str
    """The same for the same parts and target, whoever asks; the subject of the job's events."""
    path: str
    """The file that will be, or is, there."""
    state: MergeState
    parts: int
    total_bytes: int
    done_bytes: int = 0
    code: str | None = None
    reason: str = ""


class VerifyRequestV1(ContractModel):
    """Check a model file or set: all parts there, every tensor inside its file; with `checksum` read every byte."""

    path: str
    checksum: bool = True
    expected_sha256: str | None = Field(default=None, pattern="^[0-9a-fA-F]{64}$")
    """Of the file; only for a model in one file."""


class VerifiedFileV1(ContractModel):
    """One file. `sha256` is lower-case hex, None when it was not asked for."""

    path: str
    size: int
    tensors: int
    sha256: str | None = None


class VerifyResultV1(ContractModel):
    """`ok` is True when `problems` is empty."""

    path: str
    ok: bool
    files: tuple[VerifiedFileV1, ...]
    total_bytes: int
    tensors: int
    problems: tuple[str, ...] = ()
    seconds: float
