"""Users and organisations in Postgres."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg

from cortex_kit.errors import DomainError
from cortex_registry.adapters.identity_rows import org_from_row, user_from_row
from cortex_registry.adapters.outbox import write_act
from cortex_registry.adapters.postgres import Connection, Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.domain.outbox import Aggregate
from cortex_registry.domain.text import is_id
from cortex_registry.domain.users import Org, User, name_key
from cortex_registry.handlers.identity_ports import Page, UserChange, UserFacts, UserFilter
from cortex_registry.ports import Act

_SQL = load_queries("identity")
_SESSIONS = load_queries("identity_sessions")


class PostgresUsers:
    """Users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, wanted: UserFilter, page: Page) -> Sequence[User]:
        query = name_key(wanted.query) if wanted.query is not None else None
        role = wanted.role.value if wanted.role is not None else None
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                _SQL["page_users"], page.after, query, role, wanted.org_id, wanted.disabled, page.limit
            )
        return [user_from_row(row) for row in rows]

    async def find(self, user_id: str) -> User | None:
        found = await self.find_many([user_id])
        return found[0] if found else None

    async def find_many(self, ids: Sequence[str]) -> Sequence[User]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["find_users"], [user_id for user_id in ids if is_id(user_id)])
        return [user_from_row(row) for row in rows]

    async def add(self, user: User, password_hash: str, act: Act) -> None:
        async with _writing(self._database) as connection:
            await _insert(connection, user, password_hash, act)

    async def add_owner(self, org: Org, acts: tuple[Act, Act], user: User, password_hash: str) -> Org:
        async with _writing(self._database) as connection:
            if await connection.fetchval(_SQL["count_admins"]):
                message = "There is an administrator already. Sign in, or reset a password with the admin token."
                raise DomainError("owner_exists", message, status=409)
            row = await connection.fetchrow(_SQL["find_org_by_name"], name_key(org.name))
            if row is not None:
                org = org_from_row(row)
            else:
                await _insert_org(connection, org, acts[0])
            await _insert(connection, replace(user, org_id=org.id), password_hash, acts[1])
        return org

    async def change(self, user_id: str, decide: Callable[[UserFacts], UserChange]) -> User | None:
        if not is_id(user_id):
            return None
        async with _writing(self._database) as connection:
            facts = await _facts(connection, user_id)
            if facts is None:
                return None
            change = decide(facts)
            if change.user == facts.user:
                return facts.user
            await _update(connection, change)
            if change.ends_sessions:
                await connection.fetch(_SESSIONS["end_sessions_of_user"], user_id, None)
        return change.user

    async def remove(self, user_id: str, decide: Callable[[UserFacts], Act]) -> bool:
        if not is_id(user_id):
            return False
        async with _writing(self._database) as connection:
            facts = await _facts(connection, user_id)
            if facts is None:
                return False
            act = decide(facts)
            await connection.execute(_SQL["delete_user"], user_id)
            await write_act(connection, Aggregate.USER, user_id, facts.user.version + 1, act)
        return True


class PostgresOrgs:
    """Orgs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, query: str | None, page: Page) -> Sequence[Org]:
        key = name_key(query) if query is not None else None
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["page_orgs"], page.after, key, page.limit)
        return [org_from_row(row) for row in rows]

    async def find(self, org_id: str) -> Org | None:
        if not is_id(org_id):
            return None
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["find_org"], org_id)
        return org_from_row(row) if row is not None else None

    async def find_many(self, ids: Sequence[str]) -> Sequence[Org]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["find_orgs"], [org_id for org_id in ids if is_id(org_id)])
        return [org_from_row(row) for row in rows]

    async def add(self, org: Org, act: Act) -> None:
        async with _writing(self._database) as connection:
            await _insert_org(connection, org, act)

    async def change(self, org_id: str, decide: Callable[[Org], tuple[Org, Act]]) -> Org | None:
        if not is_id(org_id):
            return None
        async with _writing(self._database) as connection:
            row = await connection.fetchrow(_SQL["org_facts"], org_id)
            if row is None:
                return None
            before = org_from_row(row)
            org, act = decide(before)
            if org != before:
                key = name_key(org.name)
                await connection.execute(_SQL["update_org"], org.id, org.version, org.name, key, org.updated_at)
                await write_act(connection, Aggregate.ORG, org.id, org.version, act)
        return org

    async def remove(self, org_id: str, decide: Callable[[Org, int, int], Act]) -> bool:
        if not is_id(org_id):
            return False
        async with _writing(self._database) as connection:
            row = await connection.fetchrow(_SQL["org_facts"], org_id)
            if row is None:
                return False
            org = org_from_row(row)
            act = decide(org, org.users, row["live_keys"])
            await connection.execute(_SQL["delete_org"], org_id)
            await write_act(connection, Aggregate.ORG, org_id, org.version + 1, act)
        return True


@asynccontextmanager
async def _writing(database: Database) -> AsyncGenerator[Connection]:
    """A transaction that no other change of a user or an organisation runs beside."""
    try:
        async with database.transaction() as connection:
            await connection.execute(_SQL["lock_users"])
            yield connection
    except asyncpg.UniqueViolationError as error:
        raise _taken(error) from error
    except asyncpg.ForeignKeyViolationError as error:
        raise DomainError("org_not_found", "There is no such organisation.", status=422) from error


def _taken(error: asyncpg.UniqueViolationError) -> DomainError:
    if error.table_name == "orgs":
        return DomainError("org_name_taken", "Another organisation has this name, or one like it.", status=409)
    return DomainError("username_taken", "Another user has this name, or one like it.", status=409)


async def _facts(connection: Connection, user_id: str) -> UserFacts | None:
    row = await connection.fetchrow(_SQL["user_facts"], user_id)
    if row is None:
        return None
    return UserFacts(user_from_row(row), row["password_hash"], row["other_admins"], row["live_keys"])


async def _insert(connection: Connection, user: User, password_hash: str, act: Act) -> None:
    await connection.execute(
        _SQL["insert_user"],
        user.id,
        user.version,
        user.username,
        name_key(user.username),
        user.display_name,
        user.role.value,
        user.org_id,
        password_hash,
        user.must_change_password,
        user.created_at,
    )
    await write_act(connection, Aggregate.USER, user.id, user.version, act)


async def _update(connection: Connection, change: UserChange) -> None:
    user = change.user
    await connection.execute(
        _SQL["update_user"],
        user.id,
        user.version,
        user.username,
        name_key(user.username),
        user.display_name,
        user.role.value,
        user.org_id,
        change.password_hash,
        user.must_change_password,
        user.disabled_at,
        user.updated_at,
    )
    await write_act(connection, Aggregate.USER, user.id, user.version, change.act)


async def _insert_org(connection: Connection, org: Org, act: Act) -> None:
    await connection.execute(_SQL["insert_org"], org.id, org.version, org.name, name_key(org.name), org.created_at)
    await write_act(connection, Aggregate.ORG, org.id, org.version, act)
