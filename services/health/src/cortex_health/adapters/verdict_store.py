"""The port `VerdictStore` on the bucket, with optimistic locking by revision."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from nats.errors import Error as NatsError
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue
from pydantic import ValidationError

from cortex_contracts.documents import VerdictDocumentV1
from cortex_contracts.streams import VERDICTS
from cortex_health.ports import ConflictError
from cortex_kit.bus import Bus
from cortex_kit.errors import TransientError

TIMEOUT_S = 5.0
ResultT = TypeVar("ResultT")


class KvVerdictStore:
    """See `ports.VerdictStore`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def get(self, key: str) -> tuple[VerdictDocumentV1 | None, int]:
        return await self._guard(self._get(key))

    async def put(self, key: str, document: VerdictDocumentV1, revision: int) -> int:
        return await self._guard(self._put(key, document.model_dump_json().encode(), revision))

    async def delete(self, key: str) -> None:
        await self._guard(self._delete(key))

    async def _get(self, key: str) -> tuple[VerdictDocumentV1 | None, int]:
        kv = await self._bus.js.key_value(VERDICTS.name)
        try:
            entry = await kv.get(key)
        except KeyNotFoundError as absent:  # what was deleted is told as not found, too; its marker has a revision
            marker = cast("KeyValue.Entry | None", absent.entry)
            return None, (marker.revision or 0) if marker is not None else 0
        try:
            document = VerdictDocumentV1.model_validate_json(entry.value or b"")
        except ValidationError:
            document = None  # nobody can read it: it may be replaced
        return document, entry.revision or 0

    async def _put(self, key: str, value: bytes, revision: int) -> int:
        kv = await self._bus.js.key_value(VERDICTS.name)
        try:
            return await kv.update(key, value, last=revision)
        except KeyWrongLastSequenceError as error:
            raise ConflictError(f"{key} was written by another") from error

    async def _delete(self, key: str) -> None:
        try:
            await (await self._bus.js.key_value(VERDICTS.name)).delete(key)
        except KeyNotFoundError:
            return

    async def _guard(self, operation: Coroutine[Any, Any, ResultT]) -> ResultT:
        try:
            if not self._bus.connected:
                operation.close()
                raise TransientError("NATS is not connected")
            async with asyncio.timeout(TIMEOUT_S):
                return await operation
        except (NatsError, APIError, OSError, TimeoutError) as error:
            raise TransientError(f"bucket {VERDICTS.name}: {type(error).__name__}") from error
