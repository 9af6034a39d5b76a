"""Sealing every stored secret with the present key: one transaction, found by the names of columns and members."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import asyncpg
from pydantic import SecretStr

from cortex_contracts.documents import ModelDocumentV1
from cortex_kit.errors import PermanentError, TransientError
from cortex_kit.secrets import reseal
from cortex_registry.adapters.migrations import SchemaProblemError, check
from cortex_registry.adapters.outbox import write_act
from cortex_registry.adapters.postgres import Connection
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import Row, model_from_row
from cortex_registry.domain.identity import SYSTEM
from cortex_registry.domain.model import updated
from cortex_registry.domain.outbox import Aggregate
from cortex_registry.ports import Act

_SQL = load_queries("reseal")
_SUFFIX = "_sealed"
TIMEOUT_S = 600.0


async def reseal_all(
    dsn: SecretStr, secret_key: SecretStr, old: Sequence[SecretStr], *, only_check: bool
) -> Mapping[str, int]:
    """How many secrets of each `table.column` were (or, with `only_check`, would be) sealed anew. All or nothing.

    Raises:
        PermanentError: a secret opens with none of the keys; nothing was changed.
        TransientError: Postgres does not answer.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            connection = await asyncpg.connect(dsn.get_secret_value(), timeout=10)
            try:
                await check(connection)
                transaction = connection.transaction()
                await transaction.start()
                job = _Job(cast(Connection, connection), secret_key, old)
                done = await job.run()
                await (transaction.rollback() if only_check else transaction.commit())
                return done
            finally:
                await connection.close(timeout=5)  # rolls back what was not committed
    except SchemaProblemError as error:
        raise PermanentError(str(error)) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise TransientError(f"Postgres: {type(error).__name__}: {error}") from error


class _Job:
    def __init__(self, connection: Connection, secret_key: SecretStr, old: Sequence[SecretStr]) -> None:
        self._connection = connection
        self._secret_key = secret_key
        self._old = old
        self._done: Counter[str] = Counter()

    async def run(self) -> Mapping[str, int]:
        for row in await self._connection.fetch(_SQL["models"]):
            await self._model(row)
        for place in await self._connection.fetch(_SQL["places"]):
            await self._column(place["table_name"], place["column_name"], is_json=place["is_json"])
        return self._done

    async def _model(self, row: Row) -> None:
        """A model's document lies in a bucket too: its version rises, so that readers take the new one."""
        model = model_from_row(row)
        old = model.document
        token = self._sealed(old.hf_token_sealed, f"models.hf_token_sealed of {model.id}")
        endpoints = [
            endpoint.model_copy(
                update={"api_key_sealed": self._sealed(endpoint.api_key_sealed, f"models.external of {model.id}")}
            )
            for endpoint in old.external
        ]
        fields = tuple(
            field
            for field, changed in (
                ("endpoints", tuple(endpoints) != old.external),
                ("hf_token", token != old.hf_token_sealed),
            )
            if changed
        )
        if not fields:
            return
        self._done.update(f"models.{'external' if field == 'endpoints' else 'hf_token_sealed'}" for field in fields)
        document = ModelDocumentV1.model_validate(
            old.model_dump() | {"aggregateversion": old.aggregateversion + 1, "external": endpoints}
        )
        act = Act(SYSTEM, "model.reseal", updated(document, fields), fields)
        external = json.dumps([endpoint.model_dump(mode="json") for endpoint in endpoints])
        await self._connection.execute(_SQL["update_model"], model.id, token, external, act.event_id)
        await write_act(self._connection, Aggregate.MODEL, model.id, document.aggregateversion, act)

    async def _column(self, table: str, column: str, *, is_json: bool) -> None:
        """Names come from the catalogue of the database, and are quoted."""
        name, field = _quoted(table), _quoted(column)
        wanted = f"{field}::text LIKE '%\\_sealed\"%'" if is_json else f"{field} IS NOT NULL"
        rows = await self._connection.fetch(f"SELECT ctid, {field} AS value FROM {name} WHERE {wanted} FOR UPDATE")
        for row in rows:
            try:
                after = self._walked(row["value"], table, column) if is_json else self._sealed(row["value"], table)
            except PermanentError:
                if table != "idempotency_keys":
                    raise
                await self._connection.execute(_SQL["drop_answer"], row["ctid"])
                continue
            if after != row["value"]:
                self._done[f"{table}.{column}"] += 1
                await self._connection.execute(f"UPDATE {name} SET {field} = $2 WHERE ctid = $1", row["ctid"], after)

    def _walked(self, text: str, table: str, column: str) -> str:
        document = json.loads(text)
        changed = self._walk(document, f"{table}.{column}")
        return json.dumps(document) if changed else text

    def _walk(self, value: Any, place: str) -> bool:
        """Seal members named `..._sealed` anew, in place; True when one changed."""
        changed = False
        if isinstance(value, dict):
            members = cast(dict[str, Any], value)
            for name, child in members.items():
                if name.endswith(_SUFFIX) and isinstance(child, str):
                    members[name] = self._sealed(child, place)
                    changed = changed or members[name] != child
                else:
                    changed = self._walk(child, place) or changed
        elif isinstance(value, list):
            for child in cast(list[Any], value):
                changed = self._walk(child, place) or changed
        return changed

    def _sealed(self, sealed: str | None, place: str) -> Any:
        if sealed is None:
            return None
        try:
            return reseal(self._secret_key, sealed, self._old)
        except PermanentError as error:
            message = f"{place}: a secret opens with none of the keys (CORTEX_SECRET_KEY, CORTEX_SECRET_KEYS_OLD)"
            raise PermanentError(message) from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
