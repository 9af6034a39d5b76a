"""Answers to creates that may be repeated, in Postgres: sealed, for a day."""

import asyncio
import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from cortex_kit.errors import PermanentError
from cortex_kit.logging import get_logger
from cortex_kit.secrets import seal, unseal
from cortex_registry.adapters.claims import Claim
from cortex_registry.adapters.postgres import Database
from cortex_registry.adapters.queries import load_queries
from cortex_registry.errors import DatabaseUnavailableError

log = get_logger()
_SQL = load_queries("idempotency")
KEPT_S = 24 * 3600.0
CLEAN_EVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as it was sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier request with the same key: what it asked, and its answer once there is one."""

    digest: str
    answer: Answer | None
    lost: bool = False
    """It changed something, and its registry died before the answer was kept."""


class PostgresIdempotency:
    """Keys of creates. Every method but `run` raises DatabaseUnavailableError."""

    def __init__(
        self,
        database: Database,
        secret_key: SecretStr,
        old: Sequence[SecretStr] = (),
        *,
        crashed_after_s: float = 60.0,
    ) -> None:
        self._database = database
        self._secret_key = secret_key
        self._old = tuple(old)
        self._crashed_after_s = crashed_after_s

    @property
    def renew_every_s(self) -> float:
        """How often a claim must be renewed not to look like one whose process died."""
        return self._crashed_after_s / 4

    async def claim(self, actor: str, key: str, digest: str) -> Claim | Earlier:
        """Become the first request with this key, or learn of the one that is."""
        for _ in range(3):
            async with self._database.connection() as connection:
                token = await connection.fetchval(_SQL["claim"], actor, key, digest, self._crashed_after_s, KEPT_S)
                if token is not None:
                    return Claim(actor, key, str(token))
                row = await connection.fetchrow(_SQL["find"], actor, key, self._crashed_after_s)
            if row is not None:
                answer = self._opened(row["answer_sealed"]) if row["status"] is not None else None
                return Earlier(row["request_digest"], answer, lost=row["lost"] and answer is None)
        raise DatabaseUnavailableError("an Idempotency-Key changes hands too often")

    async def renew(self, claim: Claim) -> None:
        """Show that the first request is still being answered."""
        async with self._database.connection() as connection:
            await connection.execute(_SQL["renew"], claim.actor, claim.key, claim.id)

    async def keep(self, claim: Claim, answer: Answer) -> None:
        """Store the answer of the first request."""
        sealed = seal(self._secret_key, _encoded(answer))
        async with self._database.connection() as connection:
            await connection.execute(_SQL["keep"], claim.actor, claim.key, claim.id, answer.status, sealed)

    async def release(self, claim: Claim) -> None:
        """Forget a request that changed nothing; one that committed something stays."""
        async with self._database.connection() as connection:
            await connection.execute(_SQL["release"], claim.actor, claim.key, claim.id)

    async def run(self) -> None:
        """Delete what is older than a day, now and then; a task of the service."""
        while True:
            try:
                async with self._database.connection() as connection:
                    await connection.execute(_SQL["clean"], KEPT_S)
            except DatabaseUnavailableError as error:
                log.debug("idempotency_cleaning_waits", reason=error.message)
            await asyncio.sleep(CLEAN_EVERY_S)

    def _opened(self, sealed: str) -> Answer | None:
        """The answer; None once it was sealed with a key that is gone."""
        try:
            return _decoded(unseal(self._secret_key, sealed, self._old))
        except PermanentError:
            return None


def _encoded(answer: Answer) -> str:
    body = base64.b64encode(answer.body).decode()
    return json.dumps({"status": answer.status, "headers": answer.headers, "body": body})


def _decoded(text: str) -> Answer:
    fields: dict[str, Any] = json.loads(text)
    headers = tuple((str(name), str(value)) for name, value in fields["headers"])
    return Answer(int(fields["status"]), headers, base64.b64decode(fields["body"]))
