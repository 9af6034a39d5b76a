"""What makes a password good enough, how guessing is slowed down, whom a proxy is believed, what locks nobody out."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import IPvAnyNetwork, TypeAdapter

from cortex_contracts.rights import Role
from cortex_kit.errors import DomainError
from cortex_kit.proxies import ForwardedFor
from cortex_registry.adapters.identity_passwords import ArgonPasswords, HashCost
from cortex_registry.domain.identity import ROOT, CredentialKind, Identity
from cortex_registry.domain.passwords import one_time_password, weakness
from cortex_registry.domain.sessions import Lifetimes, Session, session_is_live
from cortex_registry.domain.throttle import Attempts, ThrottlePolicy, address_subject, attempted, blocked_for
from cortex_registry.domain.users import User, check_still_governed, name_key, normal_username
from cortex_registry.errors import UnavailableError
from cortex_registry.handlers.identity_credentials import Credentials

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALICE = User("a", 1, "alice", "", Role.ADMIN, None, False, None, None, NOW, NOW)
POLICY = ThrottlePolicy(free=2, base_s=1.0, longest_s=10.0, window_s=100.0)


@pytest.mark.parametrize(
    "password",
    [
        "elevenchars",
        "x" * 257,
        "my name is alice ok",
        "ECILA-backwards-1",
        "aaaabbbbaaaabbbb",
        "password2026!",
        "Password123456",
        "passwordpassword",
        "qwertyuiopasdf",
        "lkjhgfdsapoiu",
        "012345678901",
        "1qaz2wsx3edc",
        "administrator1",
        "correcthorsebatterystaple",
        "has a NUL \x00 in it",
    ],
)
def test_a_guessable_password_is_refused(password: str) -> None:
    assert weakness(password, "alice") is not None


@pytest.mark.parametrize(
    "password", ["correct zebra staples", "тихий вечер у реки", "T9#fk2!pQz7v", "🦊🐻🐼🐨🐯 in a row"]
)
def test_a_long_uncommon_password_is_accepted(password: str) -> None:
    assert weakness(password, "al") is None


@given(st.binary(min_size=20, max_size=20))
def test_a_one_time_password_is_always_good_enough_in_length_and_easy_to_type(random: bytes) -> None:
    password = one_time_password(random)
    assert len(password) == 23
    assert set(password) <= set("abcdefghjkmnpqrstuvwxyz23456789-")


@given(st.text(max_size=80))
def test_a_user_name_is_refused_or_keeps_its_key_however_it_is_spelt(text: str) -> None:
    try:
        name = normal_username(text)
    except ValueError:
        return
    assert normal_username(name) == name
    assert name_key(name) == name_key(text)
    assert name.isprintable()
    assert len(name_key(name)) <= 256


def test_each_failure_beyond_the_free_ones_blocks_twice_as_long_up_to_a_limit() -> None:
    waits, attempts = [], None
    for _ in range(8):
        attempts = attempted(attempts, POLICY, NOW)
        waits.append(blocked_for(attempts, NOW))
    assert waits == [0, 0, 1, 2, 4, 8, 10, 10]


def test_old_failures_are_forgotten_and_a_block_ends() -> None:
    attempts = Attempts(50, NOW - timedelta(seconds=101), NOW - timedelta(seconds=91))
    assert blocked_for(attempts, NOW) == 0
    assert attempted(attempts, POLICY, NOW).failures == 1
    assert attempted(Attempts(10_000, NOW, None), POLICY, NOW).blocked_until == NOW + timedelta(seconds=10)


def test_an_ipv6_client_cannot_escape_within_its_network() -> None:
    assert address_subject("2001:db8::1") == address_subject("2001:db8::ffff:1") != address_subject("2001:db8:0:1::1")
    assert address_subject("::ffff:192.0.2.1") == address_subject("192.0.2.1") == "address:192.0.2.1"
    assert address_subject(None) == address_subject("x\x00") == "address:unknown"


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "evil\x00, x", "10.0.0.1"),
        ("10.0.0.1", "garbage, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", ", ".join(["10.0.0.3"] * 5000), "10.0.0.3"),
        ("::ffff:10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("testclient", "203.0.113.9", "testclient"),
    ],
)
async def test_a_forwarded_address_is_believed_from_trusted_proxies_alone(peer: str, forwarded: str, seen: str) -> None:
    found: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append((scope["client"][0], scope["scheme"]))

    trusted = TypeAdapter(tuple[IPvAnyNetwork, ...]).validate_python(("10.0.0.0/8",))
    headers = [(b"x-forwarded-for", forwarded.encode()), (b"x-forwarded-proto", b"https")]
    scope = {"type": "http", "client": (peer, 1), "scheme": "http", "headers": headers}
    await ForwardedFor(app, trusted=trusted)(scope, None, None)  # type: ignore[arg-type]
    is_proxy = peer.endswith("10.0.0.1")
    assert found == [(seen, "https" if is_proxy else "http")]


def test_nobody_can_lock_everybody_out() -> None:
    own = Identity(CredentialKind.SESSION, "alice", Role.ADMIN, "a")
    disabled, demoted = replace(ALICE, disabled_at=NOW), replace(ALICE, role=Role.OPERATOR)
    for after in (None, disabled, demoted):
        with pytest.raises(DomainError) as caught:
            check_still_governed(ALICE, after, by=own, other_admins=5)
        assert caught.value.code == "own_account"
        with pytest.raises(DomainError) as caught:
            check_still_governed(ALICE, after, by=ROOT, other_admins=0)
        assert caught.value.code == "last_admin"
        check_still_governed(ALICE, after, by=ROOT, other_admins=1)
    check_still_governed(disabled, None, by=ROOT, other_admins=0)
    check_still_governed(ALICE, replace(ALICE, display_name="A"), by=own, other_admins=0)


def test_a_session_ends_unused_or_old() -> None:
    session = Session("s", "a", "c", NOW, NOW, NOW + timedelta(seconds=100), None, None)
    lifetimes = Lifetimes(idle_s=60, absolute_s=100)
    assert session_is_live(session, lifetimes, NOW + timedelta(seconds=59))
    assert not session_is_live(session, lifetimes, NOW + timedelta(seconds=60))
    used = replace(session, last_seen_at=NOW + timedelta(seconds=99))
    assert not session_is_live(used, lifetimes, NOW + timedelta(seconds=100))


async def test_an_unknown_user_costs_the_same_hash_as_a_known_one() -> None:
    passwords = ArgonPasswords(HashCost(1, 64, 1, at_once=1))
    known = await passwords.hash("right")
    computed: list[str | None] = []
    compute = passwords._compute
    passwords._compute = lambda password, hashed: computed.append(hashed) or compute(password, hashed)  # type: ignore[method-assign]
    assert await passwords.verify("right", known) is True
    assert await passwords.verify("wrong", known) is False
    assert await passwords.verify("right", None) is False
    assert await passwords.verify("a password that nobody has", None) is False, "not even the decoy's"
    verified = [hashed for hashed in computed if hashed is not None]
    assert len(verified) == 4
    assert all(hashed.startswith("$argon2id$v=19$m=64,t=1,p=1$") for hashed in verified)
    assert await passwords.verify("right", "no hash at all") is False


async def test_too_many_waiting_passwords_are_refused_at_once() -> None:
    passwords = ArgonPasswords(HashCost(1, 64, 1, at_once=1, waiting=2))
    answers = await asyncio.gather(*(passwords.hash("x") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(answer, UnavailableError) for answer in answers) == 3
    assert (await passwords.hash("x")).startswith("$argon2id$")


class StoppedClock:
    """It is always the same moment."""

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


class CountingSessions:
    """A store that counts questions; each takes a turn of the loop."""

    def __init__(self) -> None:
        self.asked = 0
        self.user = ALICE

    async def find(self, digest: str) -> tuple[Session, User]:
        self.asked += 1
        user = self.user
        await asyncio.sleep(0)
        return Session("s", "a", "c", NOW, NOW, NOW + timedelta(days=1), None, None), user

    async def touch(self, digest: str, now: datetime) -> None:
        """Nothing."""


async def test_a_credential_is_asked_for_once_at_a_time_and_anew_after_a_change() -> None:
    store, clock = CountingSessions(), StoppedClock()
    lifetimes = Lifetimes(3600, 36000)
    credentials = Credentials(store, None, lifetimes=lifetimes, clock=clock, remember_s=3)  # type: ignore[arg-type]
    await asyncio.gather(*(credentials.session("x" * 43) for _ in range(20)))
    assert store.asked == 1
    credentials.forget()
    asking = asyncio.ensure_future(credentials.session("x" * 43))
    await asyncio.sleep(0)
    store.user = replace(ALICE, disabled_at=NOW)
    credentials.forget()
    await asking
    assert await credentials.session("x" * 43) is None, "what was asked before the change is not remembered"
    assert store.asked == 3
