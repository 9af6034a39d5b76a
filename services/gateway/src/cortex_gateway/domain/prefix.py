"""What a request continues: its conversation, told from raw bytes without reading JSON.

Clients resend a conversation with something appended, so that requests of one conversation share a byte prefix from the
member `messages` (or `prompt`, `input`) on. Nothing here has to be right: a wrong guess costs a cache hit.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b

BLOCK_BYTES = 1024
SEARCH_BYTES = 64 * 1024
"""How far into the body the conversation may begin."""
_MEMBERS = (b'"messages"', b'"input"', b'"prompt"')
_USER = b'"user"'


@dataclass(frozen=True, slots=True)
class Conversation:
    """`point`: hash of its opening, everything up to the first message of the user: the same in every turn.

    `blocks`: chained hashes of whole blocks, the longest prefix last, of those that reach beyond the opening. They
    mean something in this process only.
    """

    point: int
    blocks: tuple[int, ...]


def conversation_of(body: bytes, limit: int) -> Conversation:
    """Reads at most `limit` bytes of the conversation."""
    start = _start(body)
    end = min(len(body), start + limit)
    opening = _opening(body, start, end)
    point = int.from_bytes(blake2b(memoryview(body)[start:opening], digest_size=8).digest())
    blocks: list[int] = []
    chained = 0
    for at in range(start + BLOCK_BYTES, end + 1, BLOCK_BYTES):
        chained = hash((chained, body[at - BLOCK_BYTES : at]))
        if at >= opening:
            blocks.append(chained)
    return Conversation(point, tuple(blocks))


def _start(body: bytes) -> int:
    for member in _MEMBERS:
        at = body.find(member, 0, SEARCH_BYTES)
        if at >= 0:
            return at
    return 0


def _opening(body: bytes, start: int, end: int) -> int:
    """Where the first message of the user ends, more or less; what matters is that every turn gives the same."""
    user = body.find(_USER, start, end)
    if user >= 0:
        close = body.find(b"}", user, end)
        return close if close >= 0 else end
    first = min(end, start + BLOCK_BYTES)
    close = body.find(b'",', start + len(_MEMBERS[0]) + 2, first)
    return close if close >= 0 else first


class PrefixMemory:
    """Which replica saw which prefix last, within a bounded number of blocks; the oldest are forgotten."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._seen: dict[int, str] = {}

    def find(self, blocks: Sequence[int], alive: Collection[str]) -> str | None:
        """The replica that saw the longest prefix, among those that are there."""
        for block in reversed(blocks):
            replica = self._seen.get(block)
            if replica is not None and replica in alive:
                return replica
        return None

    def remember(self, blocks: Sequence[int], replica: str) -> None:
        seen = self._seen
        for block in blocks:
            seen.pop(block, None)
            seen[block] = replica
        while len(seen) > self._capacity:
            del seen[next(iter(seen))]

    def __len__(self) -> int:
        return len(self._seen)
