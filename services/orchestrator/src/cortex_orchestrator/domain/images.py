"""Which images of an engine host belong to engines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cortex_contracts.enums import EngineType
from cortex_contracts.images import EngineImageV1

MOST = 500


@dataclass(frozen=True, slots=True)
class LocalImage:
    """An image as the Docker engine lists it."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    created_at: datetime


def engine_images(
    local: Sequence[LocalImage], defaults: Mapping[EngineType, str], asked: Sequence[str]
) -> tuple[EngineImageV1, ...]:
    """What is asked for, there or not, and what else the same repositories have here; by name, `MOST` at most."""
    default_of = {reference: engine for engine, reference in defaults.items()}
    wanted = tuple(dict.fromkeys((*defaults.values(), *asked)))
    repositories = {_repository(reference) for reference in wanted}
    found: dict[str, EngineImageV1] = {}
    for image in local:
        names = {*image.tags, *(one for one in image.digests if one in wanted)}
        for reference in names:
            if _repository(reference) in repositories:
                digest = next((one for one in image.digests if _repository(one) == _repository(reference)), None)
                found[_full(reference)] = EngineImageV1(
                    reference=reference,
                    present=True,
                    id=image.id,
                    digest=digest.partition("@")[2] if digest is not None else None,
                    size=image.size,
                    created_at=image.created_at,
                )
    for reference in wanted:
        known = found.get(_full(reference)) or EngineImageV1(reference=reference, present=False)
        added = {"reference": reference, "default_of": default_of.get(reference)}
        found[_full(reference)] = known.model_copy(update=added)
    return tuple(found[name] for name in sorted(found)[:MOST])


def _repository(reference: str) -> str:
    """The reference without tag and digest; a colon before the last slash belongs to a port."""
    head, slash, last = reference.partition("@")[0].rpartition("/")
    return head + slash + last.partition(":")[0]


def _full(reference: str) -> str:
    """With the tag that is meant when none is given."""
    if "@" in reference or ":" in reference.rpartition("/")[2]:
        return reference
    return f"{reference}:latest"
