"""Asks Postgres and the orchestrators, for the doctor."""

from datetime import datetime

from cortex_contracts import subjects
from cortex_contracts.base import NodeId
from cortex_contracts.doctor import ExamineRequestV1, ExamineResultV1
from cortex_kit.bus import Bus
from cortex_kit.errors import TransientError
from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.domain.outbox import Backlog
from cortex_registry.errors import UnavailableError

_SQL = load_queries("outbox")
TIMEOUT_S = 20.0


class PostgresFacts:
    """DatabaseFacts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def clock_and_backlog(self) -> tuple[datetime, Backlog]:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["backlog"])
            time = await connection.fetchval("SELECT clock_timestamp()")
        return time, Backlog(row["rows"], row["age_s"]) if row is not None else Backlog(0, 0.0)


class NatsNodeExaminer:
    """NodeExaminer over request-reply."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def examine(self, node: NodeId) -> ExamineResultV1:
        try:
            return await self._bus.request(
                subjects.rpc_examine(node), ExamineRequestV1(), ExamineResultV1, timeout=TIMEOUT_S
            )
        except TransientError as error:
            message = f"The orchestrator of node {node} does not answer. Try again in a moment."
            raise UnavailableError("orchestrator_unavailable", message) from error
