"""API keys in Postgres."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from cortex_contracts.base import KeyId
from cortex_kit.errors import DomainError
from cortex_registry.adapters.outbox import write_act
from cortex_registry.adapters.postgres import Connection, Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import key_from_row, key_to_json
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.keys import (
    SHORT,
    ApiKey,
    KeyChanges,
    KeyFilter,
    PlainKey,
    Rotation,
    audited,
    changed,
    key_created,
    key_revoked,
    key_updated,
    revoked,
    rotate,
)
from cortex_registry.domain.outbox import Aggregate
from cortex_registry.domain.text import is_id
from cortex_registry.domain.versions import Expected, require_version
from cortex_registry.ports import Act, KeyScope

_SQL = load_queries("keys")


class PostgresKeys:
    """KeyRepository. A row is locked before it is changed, so that no change is lost."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_all(self) -> Sequence[ApiKey]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["list_keys"])
        return [key_from_row(row) for row in rows]

    async def page(self, wanted: KeyFilter, now: datetime) -> Sequence[ApiKey]:
        state = wanted.state.value if wanted.state is not None else None
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                _SQL["page_keys"],
                wanted.user_id,
                wanted.org_id,
                state,
                now,
                wanted.text,
                wanted.after,
                wanted.limit,
            )
        return [key_from_row(row) for row in rows]

    async def find(self, key_id: KeyId) -> ApiKey | None:
        if not is_id(key_id):
            return None
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["find_key"], key_id)
        return key_from_row(row) if row is not None else None

    async def add(self, key: ApiKey, caller: Caller, *, most: int | None = None) -> ApiKey:
        async with self._database.transaction() as connection:
            owner = key.document.user_id
            if most is not None and owner is not None:
                # The owner's row is locked, so that two requests at once do not make one key too many.
                await connection.execute(_SQL["lock_owner"], owner)
                alike = owner, key.created_at, key.short_lived, SHORT
                if await connection.fetchval(_SQL["count_live_keys_of"], *alike) >= most:
                    message = f"You have {most} keys, which is the most. Revoke one first."
                    raise DomainError("too_many_keys", message, status=409, details={"limit": most})
            stored = await _owned(connection, key, ("user_id", "org_id"))
            await _insert(connection, stored, caller)
        return stored

    async def change(self, scope: KeyScope, changes: KeyChanges, expected: Expected, now: datetime) -> ApiKey | None:
        async with self._database.transaction() as connection:
            key = await _locked(connection, scope)
            if key is None:
                return None
            require_version(expected, key.version)
            after, names = changed(key, changes, now)
            if not names:
                return key
            after = await _owned(connection, after, names)
            await connection.execute(_SQL["update_key"], key_to_json(after))
            act = Act(
                scope.caller,
                "key.update",
                key_updated(after, names),
                names,
                audited(key, names),
                audited(after, names),
            )
            await write_act(connection, Aggregate.KEY, key.id, after.version, act)
        return after

    async def revoke(self, scope: KeyScope, expected: Expected, now: datetime) -> ApiKey | None:
        async with self._database.transaction() as connection:
            key = await _locked(connection, scope)
            if key is None:
                return None
            after = revoked(key, now)
            if after is None:
                return key
            require_version(expected, key.version)
            await connection.execute(_SQL["revoke_key"], key.id, now)
            act = Act(scope.caller, "key.revoke", key_revoked(after))
            await write_act(connection, Aggregate.KEY, key.id, after.version, act)
        return after

    async def rotate(
        self, scope: KeyScope, new: tuple[KeyId, PlainKey], overlap: timedelta, now: datetime
    ) -> Rotation | None:
        async with self._database.transaction() as connection:
            key = await _locked(connection, scope)
            if key is None:
                return None
            successor = await connection.fetchval(_SQL["live_successor"], key.id)
            if successor is not None:
                message = f"The key has been rotated: its successor is {successor}."
                raise DomainError("already_rotated", message, status=409, details={"successor": str(successor)})
            rotation = rotate(key, new[1], key_id=new[0], now=now, overlap=overlap)
            old, names = rotation.old, ("expires_at",)
            await connection.execute(_SQL["update_key"], key_to_json(old))
            act = Act(
                scope.caller, "key.rotate", key_updated(old, names), names, audited(key, names), audited(old, names)
            )
            await write_act(connection, Aggregate.KEY, old.id, old.version, act)
            await _insert(connection, rotation.new, scope.caller)
        return rotation


async def _locked(connection: Connection, scope: KeyScope) -> ApiKey | None:
    if not is_id(scope.key_id):
        return None
    row = await connection.fetchrow(_SQL["lock_key"], scope.key_id)
    if row is None or (scope.owner is not None and row["user_id"] != scope.owner):
        return None
    return key_from_row(row)


async def _insert(connection: Connection, key: ApiKey, caller: Caller) -> None:
    await connection.execute(_SQL["insert_key"], key_to_json(key))
    after = audited(key, tuple(name for name in type(key.document).model_fields if name not in ("digest", "id")))
    after.pop("aggregateversion", None)
    act = Act(caller, "key.create", key_created(key), after=after)
    await write_act(connection, Aggregate.KEY, key.id, key.version, act)


async def _owned(connection: Connection, key: ApiKey, names: tuple[str, ...]) -> ApiKey:
    """The key with its user's organisation when it names none; refuses owners that do not exist."""
    user_id, org_id = key.document.user_id, key.document.org_id
    if "user_id" in names and user_id is not None:
        row = await connection.fetchrow(_SQL["find_owner"], user_id) if is_id(user_id) else None
        if row is None:
            raise _unknown("user", user_id)
        if org_id is None and row["org_id"] is not None:
            document = key.document.model_copy(update={"org_id": row["org_id"]})
            return ApiKey(
                document,
                key.prefix,
                key.created_at,
                updated_at=key.updated_at,
                disabled_at=key.disabled_at,
                last_used_at=key.last_used_at,
                rotated_from=key.rotated_from,
            )
    if "org_id" in names and org_id is not None:
        found = await connection.fetchval(_SQL["find_org"], org_id) if is_id(org_id) else None
        if found is None:
            raise _unknown("org", org_id)
    return key


def _unknown(what: str, given: str) -> DomainError:
    message = f"{what}_id: there is no {'user' if what == 'user' else 'organisation'} {given[:64]!r}."
    errors = [{"field": f"{what}_id", "code": f"unknown_{what}", "message": message}]
    return DomainError(f"unknown_{what}", message, status=422, details={"errors": errors})
