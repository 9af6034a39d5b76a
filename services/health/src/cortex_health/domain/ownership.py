"""Who probes what. Pure: members and times in, members and owners out.

Every member computes the same owner of a replica from the same members (rendezvous hashing), so that nobody assigns
anything. A member that dies moves its own replicas only, one that joins takes its share from everybody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b


def rank(member: str, key: str) -> bytes:
    """Greatest wins; members are never equal, because the name is part of it."""
    return blake2b(f"{member}\x00{key}".encode(), digest_size=8).digest() + member.encode()


def owner_of(key: str, members: Iterable[str]) -> str | None:
    """The member that probes this replica; None without members."""
    return max(members, key=lambda member: rank(member, key), default=None)


def goes_before(one: str, other: str, key: str) -> bool:
    """Which of two members keeps a replica that both believe to be theirs."""
    return rank(one, key) > rank(other, key)


@dataclass(frozen=True, slots=True)
class Roster:
    """Members by their last sign of life, on the reader's own monotonic clock.

    Time stands still while nobody can be heard (NATS is away) or this process was stopped: silence says nothing then. A
    member whom nobody can hear any more owns nothing, for the others have taken its share; the last one left owns all.
    """

    own: str
    ttl_s: float
    heard: Mapping[str, float] = field(default_factory=dict[str, float])
    ticked_at: float | None = None
    joined: bool = False
    """True once the own sign of life came back: from then on the others know of us."""

    def hears(self, member: str, now: float) -> "Roster":
        """A sign of life."""
        return replace(self, heard={**self.heard, member: now}, joined=self.joined or member == self.own)

    def parts_with(self, member: str) -> "Roster":
        """It said that it leaves."""
        return replace(self, heard={name: at for name, at in self.heard.items() if name != member})

    def ticks(self, now: float, *, audible: bool) -> "Roster":
        """Time went on; members that were silent for too long are gone."""
        passed = 0.0 if self.ticked_at is None else now - self.ticked_at
        shift = passed if not audible or passed > self.ttl_s / 2 else 0.0
        heard = {name: at + shift for name, at in self.heard.items() if now - (at + shift) <= self.ttl_s}
        return replace(self, heard=heard, ticked_at=now)

    @property
    def members(self) -> frozenset[str]:
        """Who shares the work; empty until this member has joined."""
        if not self.joined:
            return frozenset()
        return frozenset(self.heard) or frozenset({self.own})
