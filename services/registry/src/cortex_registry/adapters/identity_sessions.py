"""Sessions, attempts to sign in, and personal tokens in Postgres."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import ceil

from cortex_contracts.events import UserUpdatedV1
from cortex_kit.errors import DomainError
from cortex_registry.adapters.identity_rows import session_from_row, token_from_row, user_from_row, write_audit
from cortex_registry.adapters.outbox import write_act
from cortex_registry.adapters.postgres import Connection, Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.adapters.records import Row
from cortex_registry.domain.identity import Caller
from cortex_registry.domain.outbox import Aggregate
from cortex_registry.domain.sessions import AdminToken, Session
from cortex_registry.domain.text import is_id
from cortex_registry.domain.throttle import Attempts, ThrottlePolicy, attempted, blocked_for
from cortex_registry.domain.users import User, name_key
from cortex_registry.handlers.identity_ports import NewSession, SignInFacts
from cortex_registry.ports import Act

MAX_SESSIONS = 50
"""Sessions that one user may have at once; a further one ends the longest unused."""
_SQL = load_queries("identity_sessions")
_USERS = load_queries("identity")


class PostgresSessions:
    """Sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, digest: str) -> tuple[Session, User] | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["find_session"], digest)
        return (session_from_row(row, str(row["id"])), user_from_row(row)) if row is not None else None

    async def of_user(self, user_id: str) -> Sequence[Session]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["sessions_of_user"], user_id)
        return [session_from_row(row, user_id) for row in rows]

    async def open(self, new: NewSession, caller: Caller) -> bool:
        session = new.session
        async with self._database.transaction() as connection:
            if not await _insert(connection, new):
                return False
            await connection.execute(_SQL["trim_sessions"], session.user_id, MAX_SESSIONS)
            await connection.execute(_SQL["note_login"], session.user_id, session.created_at)
            await write_audit(connection, caller, "auth.login", f"user/{session.user_id}")
        return True

    async def rotate(self, old_digest: str, new: NewSession) -> bool:
        async with self._database.transaction() as connection:
            await connection.fetch(_SQL["end_session"], old_digest)
            return await _insert(connection, new)

    async def touch(self, digest: str, now: datetime) -> None:
        async with self._database.connection() as connection:
            await connection.execute(_SQL["touch_session"], digest, now)

    async def end(self, digest: str, caller: Caller) -> bool:
        return await self._end("end_session", (digest,), caller, "auth.logout") > 0

    async def end_by_id(self, user_id: str, session_id: str, caller: Caller) -> bool:
        if not is_id(session_id):
            return False
        return await self._end("end_session_by_id", (user_id, session_id), caller, "auth.session_end") > 0

    async def end_others(self, user_id: str, kept_digest: str | None, caller: Caller) -> int:
        return await self._end("end_sessions_of_user", (user_id, kept_digest), caller, "auth.sessions_end")

    async def _end(self, query: str, arguments: tuple[str | None, ...], caller: Caller, action: str) -> int:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_SQL[query], *arguments)
            if rows:
                subject = f"user/{rows[0]['user_id']}"
                await write_audit(connection, caller, action, subject, {"sessions": len(rows)})
        return len(rows)


class PostgresSignIns:
    """SignIns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def admit(self, subjects: Sequence[tuple[str, ThrottlePolicy]], username: str, now: datetime) -> SignInFacts:
        names = sorted(subject for subject, _ in subjects)  # in one order, so that no two wait for each other
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["lock_attempts"], names)
            rows = await connection.fetch(_SQL["find_attempts"], names)
            known = {row["subject"]: _attempts(row) for row in rows}
            wait = max(blocked_for(known.get(name), now) for name in names)
            if wait > 0:
                raise _too_many(wait)
            for subject, policy in subjects:
                one = attempted(known.get(subject), policy, now)
                await connection.execute(_SQL["store_attempt"], subject, one.failures, now, one.blocked_until)
            row = await connection.fetchrow(_USERS["find_user_by_name"], name_key(username)[:256])
        return SignInFacts(user_from_row(row), row["password_hash"]) if row is not None else SignInFacts(None, None)

    async def forgive(self, forgotten: str, returned: str) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(_SQL["forget_attempts"], forgotten)
            await connection.execute(_SQL["return_attempt"], returned)

    async def rehash(self, user_id: str, known: str, new: str) -> None:
        async with self._database.connection() as connection:
            await connection.execute(_USERS["rehash_user"], user_id, known, new)

    async def note_failure(self, username: str, caller: Caller) -> None:
        async with self._database.connection() as connection:
            await write_audit(connection, caller, "auth.login_failed", "auth", {"username": username[:64]})

    async def sweep(self, now: datetime, *, older_than_s: float, at_most: int) -> None:
        async with self._database.connection() as connection:
            await connection.execute(_SQL["sweep_attempts"], now - timedelta(seconds=older_than_s), now)
            await connection.execute(_SQL["trim_attempts"], at_most)
            await connection.execute(_SQL["sweep_sessions"], now)


class PostgresTokens:
    """Tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, digest: str) -> tuple[AdminToken, User] | None:
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_SQL["find_token"], digest)
        return (token_from_row(row, str(row["id"])), user_from_row(row)) if row is not None else None

    async def of_user(self, user_id: str) -> Sequence[AdminToken]:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_SQL["tokens_of_user"], user_id)
        return [token_from_row(row, user_id) for row in rows]

    async def add(self, token: AdminToken, digest: str, caller: Caller, *, at_most: int) -> None:
        async with self._database.transaction() as connection:
            # The user's row is locked by this, so that two requests cannot both be the last that is allowed.
            version, username = await _bump(connection, token.user_id)
            if await connection.fetchval(_SQL["count_tokens"], token.user_id) >= at_most:
                message = f"You have {at_most} personal tokens: revoke one first."
                raise DomainError("too_many_tokens", message, status=409)
            await connection.execute(
                _SQL["insert_token"],
                token.id,
                token.user_id,
                token.name,
                token.prefix,
                digest,
                token.role.value,
                token.expires_at,
                token.created_at,
            )
            act = _token_act(caller, "token.create", token, username)
            await write_act(connection, Aggregate.USER, token.user_id, version, act)

    async def revoke(self, user_id: str, token_id: str, now: datetime, caller: Caller) -> AdminToken | None:
        if not is_id(token_id):
            return None
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_SQL["revoke_token"], user_id, token_id, now)
            if row is None:
                return None
            token = token_from_row(row, user_id)
            version, username = await _bump(connection, user_id)
            act = _token_act(caller, "token.revoke", token, username)
            await write_act(connection, Aggregate.USER, user_id, version, act)
        return token

    async def touch(self, token_id: str, now: datetime) -> None:
        async with self._database.connection() as connection:
            await connection.execute(_SQL["touch_token"], token_id, now)


async def _insert(connection: Connection, new: NewSession) -> bool:
    session = new.session
    stored = await connection.fetchval(
        _SQL["insert_session"],
        new.digest,
        session.id,
        session.user_id,
        session.csrf_digest,
        session.created_at,
        session.expires_at,
        session.address,
        session.user_agent,
    )
    return stored is not None


async def _bump(connection: Connection, user_id: str) -> tuple[int, str]:
    row = await connection.fetchrow(_USERS["bump_user"], user_id)
    if row is None:
        raise DomainError("user_not_found", "The user is gone.", status=404)
    return row["version"], row["username"]


def _token_act(caller: Caller, action: str, token: AdminToken, username: str) -> Act:
    event = UserUpdatedV1(id=token.user_id, name=username, changed=("tokens",))
    shown = {"token_id": token.id, "name": token.name, "prefix": token.prefix, "role": token.role.value}
    return Act(caller, action, event, event.changed, after={**shown})


def _attempts(row: Row) -> Attempts:
    return Attempts(row["failures"], row["last_at"], row["blocked_until"])


def _too_many(wait_s: float) -> DomainError:
    seconds = ceil(wait_s)
    message = f"Too many attempts to sign in: try again in {seconds} s."
    return DomainError("too_many_attempts", message, status=429, details={"retry_after_s": seconds})
