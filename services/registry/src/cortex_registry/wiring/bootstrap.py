"""`python -m cortex_registry bootstrap-owner` and `sign-in-link`: administrators without a running service."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial

from cortex_contracts.rights import Role
from cortex_kit.clock import SystemClock
from cortex_kit.secrets import sign_in_proof
from cortex_registry.adapters.identity_passwords import ArgonPasswords, HashCost
from cortex_registry.adapters.identity_users import PostgresUsers
from cortex_registry.adapters.postgres import Database
from cortex_registry.domain.identity import ROOT, Caller
from cortex_registry.domain.users import User, UserSpecification
from cortex_registry.errors import DatabaseUnavailableError
from cortex_registry.handlers.identity_links import make_code
from cortex_registry.handlers.identity_users import Owner, UserService
from cortex_registry.settings import MigrationSettings, ResealSettings

_COST = HashCost(time_cost=3, memory_kib=65536, parallelism=4, at_once=1)
"""A service with other settings hashes anew at the first sign-in."""
_POLL_S = 0.05


async def bootstrap_owner(settings: MigrationSettings, username: str, org: str, *, wait_s: float) -> Owner:
    """Make the first administrator in the database of the settings.

    Raises:
        DomainError: 409 `owner_exists`, `username_taken`.
        DatabaseUnavailableError: Postgres does not answer within `wait_s`.
        SchemaError: the migrations are missing.
    """
    async with _opened(settings, wait_s) as database:
        service = UserService(PostgresUsers(database), ArgonPasswords(_COST), clock=SystemClock(), forget=lambda: None)
        specification = UserSpecification(username=username, role=Role.ADMIN)
        return await service.bootstrap(specification, org, Caller(ROOT))


async def sign_in_code(settings: ResealSettings, username: str | None, *, wait_s: float) -> tuple[User, str, datetime]:
    """A code for a sign-in link, for the oldest administrator who may sign in unless another user is named.

    Raises:
        DomainError: 404 `user_not_found`.
        DatabaseUnavailableError: Postgres does not answer within `wait_s`.
        SchemaError: the migrations are missing.
    """
    async with _opened(settings, wait_s) as database:
        prove = partial(sign_in_proof, settings.secret_key)
        return await make_code(PostgresUsers(database), prove, SystemClock().now(), username)


@asynccontextmanager
async def _opened(settings: MigrationSettings, wait_s: float) -> AsyncGenerator[Database]:
    database = Database(settings.database_url, size=2, acquire_timeout_s=5.0, command_timeout_s=10.0)
    await database.open()
    watch = asyncio.create_task(database.run())
    try:
        await _reachable(database, watch, wait_s)
        yield database
    finally:
        watch.cancel()
        await database.close()


async def _reachable(database: Database, watch: "asyncio.Task[None]", wait_s: float) -> None:
    deadline = asyncio.get_running_loop().time() + wait_s
    while (reason := database.readiness()) is not None:
        if watch.done():
            await watch
        if asyncio.get_running_loop().time() >= deadline:
            raise DatabaseUnavailableError(reason)
        await asyncio.sleep(_POLL_S)
