"""Answers about the whole."""

from pydantic import BaseModel

from cortex_contracts.documents import NodeDocumentV1


class NodeList(BaseModel):
    items: list[NodeDocumentV1]


class ComponentAnswer(BaseModel):
    """Whether something the registry needs is there."""

    ready: bool
    reason: str | None


class CountsAnswer(BaseModel):
    """What there is; null where the database cannot be asked."""

    models: int | None
    models_by_state: dict[str, int] | None
    keys: int | None
    replicas_by_state: dict[str, int]
    nodes: int


class StatusAnswer(BaseModel):
    """The registry's view of the whole."""

    ready: bool
    components: dict[str, ComponentAnswer]
    counts: CountsAnswer
