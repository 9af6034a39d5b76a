"""Inspect on request: read, remember the document, tell the observers, answer."""

import hashlib

from cortex_contracts.events import GgufInspectedV1, GgufRejectedV1
from cortex_contracts.rpc import InspectRequestV1, InspectResultV1, RpcError, RpcReply
from cortex_gguf_inspector.errors import GgufError
from cortex_gguf_inspector.metrics import INSPECT_SECONDS, INSPECTIONS
from cortex_gguf_inspector.ports import DocumentStore, Inspector, Observers
from cortex_kit.clock import next_version
from cortex_kit.errors import TransientError
from cortex_kit.logging import get_logger

log = get_logger()
SHOWN_PATH = 512


class InspectHandler:
    """Answers every request, with a result or with an error: the caller never waits for its timeout."""

    def __init__(self, inspector: Inspector, documents: DocumentStore, observers: Observers) -> None:
        self._inspector = inspector
        self._documents = documents
        self._observers = observers
        self._version = 0

    async def inspect(self, request: InspectRequestV1) -> RpcReply[InspectResultV1]:
        """Answers also while nothing can be stored: documents and events are for others, the answer is for the caller."""
        try:
            with INSPECT_SECONDS.time():
                result = await self._inspector.inspect(request.path)
        except GgufError as error:
            INSPECTIONS.labels(error.code).inc()
            await self._rejected(request.path, error)
            return RpcReply[InspectResultV1](error=RpcError(code=error.code, message=error.message))
        INSPECTIONS.labels("ok").inc()
        return RpcReply[InspectResultV1](result=await self._inspected(result))

    async def _inspected(self, result: InspectResultV1) -> InspectResultV1:
        self._version = next_version(self._version)
        document = result.gguf.model_copy(update={"aggregateversion": self._version})
        log.info("gguf_inspected", path=document.path, identity=document.identity, architecture=document.architecture)
        try:
            await self._documents.put(document.identity, document)
        except TransientError as error:
            log.warning("gguf_document_not_stored", identity=document.identity, error=str(error))
        event = GgufInspectedV1(
            path=document.path,
            identity=document.identity,
            architecture=document.architecture,
            quantization=document.quantization,
            parameters=document.parameters,
        )
        await self._observers.try_publish(event, aggregate_id=document.identity)
        return InspectResultV1(path=result.path, gguf=document)

    async def _rejected(self, path: str, error: GgufError) -> None:
        shown = path[:SHOWN_PATH].encode(errors="replace").decode()
        log.info("gguf_rejected", path=shown, code=error.code, offset=error.offset, reason=error.message)
        event = GgufRejectedV1(path=shown, code=error.code, reason=error.message)
        aggregate_id = hashlib.sha256(shown.encode()).hexdigest()
        await self._observers.try_publish(event, aggregate_id=aggregate_id)
