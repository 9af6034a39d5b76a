"""Base class and identifier types of every contract."""

from datetime import UTC, datetime
from typing import Annotated, NewType

from pydantic import AfterValidator, BaseModel, ConfigDict

ModelId = NewType("ModelId", str)
ReplicaId = NewType("ReplicaId", str)
KeyId = NewType("KeyId", str)
NodeId = NewType("NodeId", str)


class ContractModel(BaseModel):
    """A frozen message or document; unknown fields are ignored, so that a newer writer does not break an older reader."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


def _as_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


UtcDatetime = Annotated[datetime, AfterValidator(_as_utc)]
"""A point in time, always in UTC."""


def replica_id(model_id: ModelId, ordinal: int) -> ReplicaId:
    """The id of the n-th replica of a model; a valid NATS KV key."""
    return ReplicaId(f"{model_id}-{ordinal}")
