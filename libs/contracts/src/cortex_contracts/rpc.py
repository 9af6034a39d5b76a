"""Request-reply messages over NATS. A reply carries either a result or an error with a stable code."""

from typing import Generic, TypeVar

from pydantic import Field

from cortex_contracts.base import ContractModel, ModelId
from cortex_contracts.documents import GgufDocumentV1

ResultT = TypeVar("ResultT", bound=ContractModel)


class RpcError(ContractModel):
    """A stable code and a sentence that says what to do."""

    code: str
    message: str


class RpcReply(ContractModel, Generic[ResultT]):
    """Exactly one of `result` and `error` is set."""

    result: ResultT | None = None
    error: RpcError | None = None


class InspectRequestV1(ContractModel):
    """Inspect a GGUF file or a folder holding exactly one GGUF model. `path` is below the models root."""

    path: str


class InspectResultV1(ContractModel):
    """`path` is the file to serve (part 1 of a split set), below the models root."""

    path: str
    gguf: GgufDocumentV1


class LogsRequestV1(ContractModel):
    """The last lines of an engine's output."""

    model_id: ModelId
    ordinal: int = 0
    tail: int = Field(default=200, ge=1, le=5000)


class LogsResultV1(ContractModel):
    lines: tuple[str, ...]
