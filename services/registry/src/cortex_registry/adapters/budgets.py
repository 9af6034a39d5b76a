"""Budgets: what Postgres knows was spent, and the counters of the gateways."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime

from nats.errors import Error as NatsError

from cortex_contracts.base import KeyId
from cortex_contracts.streams import BUDGETS
from cortex_contracts.subjects import budget_counter
from cortex_kit.bus import API_TIMEOUT_S, Bus
from cortex_kit.errors import TransientError
from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.queries import load_queries

_SQL = load_queries("budgets")


class PostgresSpending:
    """`handlers.budgets.Spending`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(self, start: datetime) -> Mapping[KeyId, int]:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_SQL["spent"], start)
        return {KeyId(row["key_id"]): row["tokens"] for row in rows}


class JetStreamBudgets:
    """`handlers.budgets.BudgetCounters`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def value(self, key: KeyId, month: str) -> int:
        query = json.dumps({"last_by_subj": budget_counter(key, month)}).encode()
        try:
            async with asyncio.timeout(API_TIMEOUT_S):
                answer = await self._bus.nc.request(f"$JS.API.DIRECT.GET.{BUDGETS}", query, timeout=API_TIMEOUT_S)
            status = (answer.headers or {}).get("Status")
            if status == "404":
                return 0
            if status is not None:
                raise TransientError(f"{BUDGETS} answered {status}")
            return int(json.loads(answer.data)["val"])
        except (NatsError, OSError, TimeoutError, ValueError, KeyError) as error:
            raise TransientError(f"a budget could not be read: {type(error).__name__}") from error

    async def add(self, key: KeyId, month: str, amount: int) -> None:
        headers = {"Nats-Incr": f"{amount:+d}"}
        try:
            async with asyncio.timeout(API_TIMEOUT_S):
                await self._bus.js.publish(budget_counter(key, month), b"", headers=headers)
        except (NatsError, OSError, TimeoutError) as error:
            raise TransientError(f"a budget could not be raised: {type(error).__name__}") from error
