"""`ports.Counters` on JetStream's message counters (NATS ADR-49): an addition answers with the new value."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from nats.errors import Error as NatsError

from cortex_contracts.streams import BUDGETS, LIMITS
from cortex_contracts.subjects import BUDGET_SUBJECTS
from cortex_gateway.ports import Reading
from cortex_kit.bus import Bus
from cortex_kit.errors import TransientError

T = TypeVar("T")
TIMEOUT_S = 2.0
_BUDGET = BUDGET_SUBJECTS[0].removesuffix(">")
_FOUND = "200"


class _Failure(msgspec.Struct):
    code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    val: str | None = None
    duplicate: bool = False
    error: _Failure | None = None


class _Value(msgspec.Struct):
    val: str


class _Info(msgspec.Struct):
    created: str | None = None
    error: _Failure | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode
_decode_value = msgspec.json.Decoder(_Value).decode
_decode_info = msgspec.json.Decoder(_Info).decode


class JetStreamCounters:
    """Each call is one request to the server, with a deadline."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def add(self, subject: str, amount: int, operation: str | None = None) -> int:
        headers = {"Nats-Incr": f"{amount:+d}"}
        if operation is not None:
            headers["Nats-Msg-Id"] = operation
        data, _ = await self._ask(subject, b"", headers)
        ack = _decoded(_decode_ack, data)
        if ack.error is not None:
            raise TransientError(f"{subject}: {ack.error.description}")
        if ack.val is not None:
            return int(ack.val)
        return await self.last(subject) or 0

    async def last(self, subject: str) -> int | None:
        message = await self._get(subject, {"last_by_subj": subject})
        return None if message is None else message[0]

    async def read(self, subject: str, since: datetime) -> Reading | None:
        start = since.astimezone(UTC).isoformat().replace("+00:00", "Z")
        # The last comes first: the other way round, an addition between the two would pass for one of a time long ago.
        last = await self._get(subject, {"last_by_subj": subject})
        if last is None:
            return None
        first = await self._get(subject, {"start_time": start, "next_by_subj": subject})
        if first is None:
            return Reading(before=last[0], value=last[0], first_at=since)
        value, increment, at = first
        return Reading(before=min(value, value - increment), value=last[0], first_at=at)

    async def incarnation(self) -> str:
        data, _ = await self._ask(f"$JS.API.STREAM.INFO.{LIMITS}", b"", None)
        info = _decoded(_decode_info, data)
        if info.created is None:
            raise TransientError("the stream of limits has not been provisioned")
        return info.created

    async def _get(self, subject: str, query: dict[str, str]) -> tuple[int, int, datetime] | None:
        """(value, increment, time) of a stored addition."""
        stream = BUDGETS if subject.startswith(_BUDGET) else LIMITS
        data, headers = await self._ask(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(query), None)
        if headers.get("Status", _FOUND) != _FOUND:
            if headers["Status"] == "404":
                return None
            raise TransientError(f"{stream} answered {headers['Status']}")
        return int(_decoded(_decode_value, data).val), int(headers["Nats-Incr"]), _moment(headers["Nats-Time-Stamp"])

    async def _ask(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> tuple[bytes, dict[str, str]]:
        if not self._bus.connected:
            raise TransientError("NATS is not connected")
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._bus.nc.request(subject, payload, timeout=TIMEOUT_S, headers=headers)
        except (NatsError, OSError, TimeoutError) as error:
            raise TransientError(f"{subject}: {type(error).__name__}") from error
        return answer.data, answer.headers or {}


def _decoded(decode: Callable[[bytes], T], data: bytes) -> T:
    try:
        return decode(data)
    except msgspec.DecodeError as error:
        raise TransientError("an answer of the counters could not be read") from error


def _moment(stamp: str) -> datetime:
    """A time of the server's, which has up to nine digits of a second."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00")
