"""API keys by the admin API: one's own, or all."""

import asyncio
from collections.abc import Mapping
from typing import Any

from cortex_console.domain.api_keys import USAGE_DAYS, ApiKey, Names
from cortex_console.domain.shapes import Row, rows, text, whole
from cortex_console.ports import AdminCalls, Query

PAGE = 50
_MOST = 1000


class KeysApi:
    """Every method raises ConsoleError. `all_keys` chooses between everybody's and one's own."""

    def __init__(self, calls: AdminCalls, *, all_keys: bool) -> None:
        self._calls = calls
        self._path = "/keys" if all_keys else "/me/keys"
        self._usage = "/usage/aggregate" if all_keys else "/me/usage/aggregate"

    async def page(self, query: Query, after: str | None) -> tuple[list[ApiKey], str | None]:
        """The oldest first, and where the next page begins."""
        answer = await self._calls.get(self._path, {**query, "limit": PAGE, "after": after})
        following = answer.get("next")
        return [ApiKey.of(one) for one in rows(answer.get("items"))], text(following) if following else None

    async def tokens(self) -> dict[str, int]:
        """Of each key that was used in the last USAGE_DAYS."""
        query = {"group_by": "key", "hours": USAGE_DAYS * 24, "limit": _MOST}
        answer = await self._calls.get(self._usage, query)
        return {text(one.get("key_id")): whole(one.get("total_tokens")) for one in rows(answer.get("items"))}

    async def create(self, body: Mapping[str, Any]) -> Row:
        """A new one; `key` of the answer is shown once."""
        return await self._calls.post(self._path, body)

    async def change(self, key: ApiKey, changes: Mapping[str, Any]) -> None:
        """Change what is given, unless somebody else did meanwhile."""
        await self._calls.patch(f"{self._path}/{key.id}", changes, version=key.version)

    async def rotate(self, key: ApiKey, overlap_s: int) -> Row:
        """Its successor; `key` of the answer is shown once."""
        return await self._calls.post(f"{self._path}/{key.id}/rotate", {"overlap_s": overlap_s})

    async def revoke(self, key: ApiKey) -> None:
        """For ever."""
        await self._calls.delete(f"{self._path}/{key.id}")


async def read_names(calls: AdminCalls, *, everybody: bool) -> Names:
    """Of users and organisations, a thousand at most each; none for who may not see them."""
    if not everybody:
        return Names({}, {})
    users, orgs = await asyncio.gather(
        calls.get("/users/lookup", {"limit": _MOST}), calls.get("/orgs/lookup", {"limit": _MOST})
    )
    return Names(
        {text(one.get("id")): text(one.get("username") or one.get("name")) for one in rows(users.get("items"))},
        {text(one.get("id")): text(one.get("name")) for one in rows(orgs.get("items"))},
    )
