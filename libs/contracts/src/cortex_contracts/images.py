"""Engine images of a node (request-reply): what is there, and what is asked for and is not."""

from pydantic import Field

from cortex_contracts.base import ContractModel, NodeId, UtcDatetime
from cortex_contracts.enums import EngineType


class ImagesRequestV1(ContractModel):
    """List engine images: the node's default ones, those asked for, and other tags of the same repositories."""

    references: tuple[str, ...] = Field(default=(), max_length=1000)
    """Images that models name."""


class EngineImageV1(ContractModel):
    """One image by one of its names."""

    reference: str
    present: bool
    default_of: EngineType | None = None
    """The engine whose models get it unless they name another."""
    id: str | None = None
    digest: str | None = None
    """What the registry it came from calls it; None for one that was built here."""
    size: int | None = None
    """Bytes, layers shared with other images included."""
    created_at: UtcDatetime | None = None


class ImagesResultV1(ContractModel):
    """`reason` says why there is nothing to list, None when there is."""

    node: NodeId
    images: tuple[EngineImageV1, ...] = ()
    reason: str | None = None
