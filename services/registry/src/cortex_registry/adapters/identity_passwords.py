"""Argon2id. Each hash fills tens of MiB, so few are made at once and few more wait."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from cortex_registry.domain.passwords import normal_password
from cortex_registry.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class HashCost:
    """Argon2id parameters, and how many hashes may be made at once."""

    time_cost: int
    memory_kib: int
    parallelism: int
    at_once: int
    waiting: int = 64
    patience_s: float = 10.0


class ArgonPasswords:
    """Passwords."""

    def __init__(self, cost: HashCost) -> None:
        self._hasher = PasswordHasher(cost.time_cost, cost.memory_kib, cost.parallelism)
        self._cost = cost
        # The threads bound the memory, also for a hash whose caller has gone: a thread cannot be cancelled.
        self._threads = ThreadPoolExecutor(cost.at_once, thread_name_prefix="password")
        self._waiting = 0
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        return await self._run(password, None)

    async def verify(self, password: str, known: str | None) -> bool:
        if self._decoy is None:
            self._decoy = await self._run("a password that nobody has", None)
        right = await self._run(password, known or self._decoy)
        return bool(right) and known is not None

    def is_outdated(self, known: str) -> bool:
        try:
            return self._hasher.check_needs_rehash(known)
        except InvalidHashError:
            return True

    async def _run(self, password: str, known: str | None) -> str:
        """A hash, or, when one is known, something non-empty if the password fits."""
        if self._waiting >= self._cost.waiting:
            raise _busy()
        self._waiting += 1
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._cost.patience_s):
                return await loop.run_in_executor(self._threads, self._compute, normal_password(password), known)
        except TimeoutError as error:
            raise _busy() from error
        finally:
            self._waiting -= 1

    def _compute(self, password: str, known: str | None) -> str:
        if known is None:
            return self._hasher.hash(password)
        try:
            return known if self._hasher.verify(known, password) else ""
        except (VerificationError, InvalidHashError):
            return ""


def _busy() -> UnavailableError:
    return UnavailableError("sign_in_busy", "Too many passwords are being checked. Try again in a moment.")
