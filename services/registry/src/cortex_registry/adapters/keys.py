"""API keys in Postgres."""

from collections.abc import Sequence
from datetime import datetime

from cortex_contracts.base import KeyId
from cortex_registry.adapters.outbox import write_act
from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import key_from_row, key_to_json
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.keys import ApiKey, key_revoked, revoked
from cortex_registry.domain.outbox import Aggregate
from cortex_registry.domain.text import is_id
from cortex_registry.ports import Act

_SQL = load_queries("keys")


class PostgresKeys:
    """KeyRepository."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_all(self) -> Sequence[ApiKey]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["list_keys"])
        return [key_from_row(row) for row in rows]

    async def add(self, key: ApiKey, act: Act) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["insert_key"], key_to_json(key))
            await write_act(connection, Aggregate.KEY, key.id, key.document.aggregateversion, act)

    async def revoke(self, key_id: KeyId, now: datetime, caller: Caller) -> ApiKey | None:
        if not is_id(key_id):
            return None
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SQL["lock_key"], key_id)
            if row is None:
                return None
            key = key_from_row(row)
            after = revoked(key, now)
            if after is None:
                return key
            await connection.execute(_SQL["revoke_key"], key_id, now)
            act = Act(caller, "key.revoke", key_revoked(after))
            await write_act(connection, Aggregate.KEY, key_id, after.document.aggregateversion, act)
        return after
