"""Ties a create to its Idempotency-Key: the transaction that makes a change says so in the key's own row.

So there is no moment in which the change is there and the key forgotten: a request that is sent again after a crash finds
either nothing done and carries it out, or that it was done and does not repeat it.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from cortex_kit.errors import DomainError
from cortex_registry.adapters.queries import load_queries

_SQL = load_queries("idempotency")


class Executor(Protocol):
    """The part of a connection that is needed here."""

    async def fetchval(self, query: str, *args: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to answer the first request with a key."""

    actor: str
    key: str
    id: str


@dataclass(slots=True)
class _Holder:
    claim: Claim | None


_present: ContextVar[_Holder | None] = ContextVar("idempotency_claim", default=None)


@contextmanager
def carrying(claim: Claim) -> Generator[None]:
    """What is committed within the body, and by tasks that it starts as long as it lasts, is committed for this claim."""
    holder = _Holder(claim)
    token = _present.set(holder)
    try:
        yield
    finally:
        holder.claim = None
        _present.reset(token)


async def mark_committed(connection: Executor) -> None:
    """The last statement of a transaction. Does nothing unless a claim is carried and the transaction has written.

    Raises:
        DomainError: 409 `idempotency_claim_lost`, another request carries the key meanwhile; roll back.
    """
    holder = _present.get()
    claim = holder.claim if holder is not None else None
    if claim is None or not await connection.fetchval(_SQL["writes"]):
        return
    if not await connection.fetchval(_SQL["mark_committed"], claim.actor, claim.key, claim.id):
        message = "This request took so long that another one with its Idempotency-Key was begun. Nothing was changed."
        raise DomainError("idempotency_claim_lost", message, status=409)
