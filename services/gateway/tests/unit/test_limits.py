"""Grants, leases and figures of limits."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_gateway.domain import limits
from cortex_gateway.domain.levelling.ask import read_ask
from cortex_gateway.domain.limits import Limit, RecentUse, Standing
from cortex_gateway.domain.requests import API_ROUTES


@dataclass
class Actor:
    """A gateway at work on a counter, one message at a time."""

    held: int = 0
    used: int = 0
    back: int = 0
    """What it has to take back of the counter."""


@dataclass
class World:
    limit: int
    counter: int = 0
    actors: list[Actor] = field(default_factory=list)

    def step(self, actor: Actor, choice: int, asked: int) -> None:
        if actor.back and choice != 1:
            self.counter -= actor.back
            actor.back = 0
        elif choice == 1 and actor.held:
            actor.held -= 1
            actor.used += 1
        elif choice == 2 and actor.held:
            actor.back, actor.held = actor.held, 0
        elif choice == 3:
            self.counter += asked  # its answer is lost: nobody uses these
        else:
            self.counter += asked
            got = limits.granted(self.counter, asked, self.limit)
            actor.held += got
            actor.back += asked - got


@given(
    limit=st.integers(1, 50),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 20)), max_size=300),
)
def test_whatever_the_interleaving_no_more_is_granted_than_the_limit(limit, steps):
    world = World(limit, actors=[Actor() for _ in range(4)])
    for who, choice, asked in steps:
        world.step(world.actors[who], choice, asked)
        assert sum(actor.held + actor.used for actor in world.actors) <= limit


@given(limit=st.integers(1, 400), seed=st.integers(0, 1000), gateways=st.integers(1, 6))
def test_gateways_that_keep_asking_use_up_the_whole_limit(limit, seed, gateways):
    order = random.Random(seed)
    world = World(limit, actors=[Actor() for _ in range(gateways)])
    for _ in range(60 * gateways + 2 * limit):
        actor = order.choice(world.actors)
        if actor.held:
            actor.used, actor.held = actor.used + actor.held, 0
        remaining = max(0, limit - world.counter)
        asked = limits.lease_size(1, order.randrange(40), remaining)
        world.step(actor, 0, max(asked, 1))
    for actor in world.actors:
        if actor.back:
            world.step(actor, 0, 1)
    for actor in world.actors:
        world.step(actor, 0, limit)
    assert sum(actor.used + actor.held for actor in world.actors) == limit


@given(st.integers(-5, 500), st.integers(0, 500), st.integers(0, 5000))
def test_a_lease_covers_the_need_while_enough_is_left_and_never_more_than_is_left(need, target, remaining):
    size = limits.lease_size(need, target, remaining)
    assert 0 <= size <= remaining
    assert size >= min(max(0, need), remaining)
    if need <= 0:
        assert size <= remaining // limits.NEAR_PART


def test_shares_shrink_to_what_is_asked_for_near_the_limit():
    assert [limits.lease_size(1, 50, remaining) for remaining in (1000, 200, 80, 16, 8, 1, 0)] == [
        50,
        25,
        10,
        2,
        1,
        1,
        0,
    ]


def test_the_parts_of_all_gateways_together_are_the_limit_at_most():
    for limit in (4, 10, 1000):
        assert 4 * limits.local_share(limit, 4) <= limit
    assert limits.local_share(1, 4) == 1
    assert limits.local_budget(3000, 1000, 4) == 500
    assert limits.local_budget(3000, 5000, 4) == 0
    assert limits.local_budget(3000, None, 4) == 25


@given(st.lists(st.integers(0, 250), min_size=1, max_size=8), st.integers(100, 2000))
def test_gateways_that_know_what_is_left_stay_within_the_limit_on_their_own(used, limit):
    left = limit - sum(used)
    if left >= 0:
        sizes = [limits.local_size(limit, own, left, len(used)) for own in used]
        assert sum(sizes) <= limit + len(used)
        assert all(size >= own for size, own in zip(sizes, used, strict=True))


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 9)), max_size=80))
def test_recent_use_is_that_of_a_minute_to_the_second(steps):
    recent, now, log = RecentUse(), 1000.0, []
    for pause, units in steps:
        now += pause
        recent.add(now, units)
        log.append((now, units))
        at_least = sum(one for at, one in log if at > now - 60)
        at_most = sum(one for at, one in log if at > now - 61)
        assert at_least <= recent.total(now) <= at_most


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0004, "1ms"),
        (0.25, "250ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9, "59.9s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3700, "1h1m40s"),
    ],
)
def test_durations_are_spelt_as_openai_does(seconds, text):
    assert limits.duration(seconds) == text


def test_headers_are_openai_s():
    assert limits.HeaderNames(Limit.REQUESTS).headers(60, -3, 60) == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"0"),
        (b"x-ratelimit-reset-requests", b"1m0s"),
    ]
    assert limits.HeaderNames(Limit.TOKENS).headers(60, 70, -5)[1:] == [
        (b"x-ratelimit-remaining-tokens", b"60"),
        (b"x-ratelimit-reset-tokens", b"0s"),
    ]


def test_a_refusal_is_openai_s_and_says_when_to_come_back():
    error = limits.refusal(Limit.TOKENS, Standing(1000, 40, 20), 300, 19.2, [])
    body = msgspec.json.decode(error.body())["error"]
    assert (error.status, body["code"], body["type"], error.retry_after_s) == (429, "rate_limit_exceeded", "tokens", 20)
    assert "Limit 1000, Used 960, Requested 300. Please try again in 19.2s" in body["message"]
    spent = limits.refusal(Limit.BUDGET, Standing(1000, 0, 20), 300, 86400, [])
    body = msgspec.json.decode(spent.body())["error"]
    assert (spent.status, body["code"], body["type"]) == (429, "insufficient_quota", "insufficient_quota")


@pytest.mark.parametrize(
    ("path", "members", "tokens"),
    [
        ("/v1/chat/completions", b"", 256),
        ("/v1/chat/completions", b'"max_tokens": 7', 7),
        ("/v1/chat/completions", b'"max_completion_tokens": 7, "n": 3', 21),
        ("/v1/responses", b'"max_output_tokens": 7', 7),
        ("/v1/embeddings", b"", 0),
    ],
)
def test_a_request_reserves_its_prompt_and_what_it_asks_for(path, members, tokens):
    given = b'"messages": [{}], "input": "x"' + (b", " + members if members else b"")
    body = (b'{"model": "m", ' + given + b"}").ljust(120)
    need = read_ask(API_ROUTES[path], body, 0).need()
    assert need.tokens(default_completion=256) == 30 + tokens
    assert limits.Need(40, -1).tokens(default_completion=256) == 10 + 256


def test_months_are_those_of_utc():
    now = datetime(2026, 12, 31, 23, 59, 30, tzinfo=UTC)
    assert limits.month_of(now) == "202612"
    assert limits.month_left(now) == 30


@pytest.mark.parametrize(
    ("rate", "limit", "units"),
    [
        (0.0, 1000, 0),
        (3.0, 1000, 1),
        (100.0, 1000, 25),
        (10_000.0, 1000, 50),
        (100.0, 1_000_000, 100),
        (5_000.0, 1_000_000, 1250),
    ],
)
def test_a_share_lasts_for_a_quarter_of_a_second_or_for_a_burst_that_is_next_to_nothing(rate, limit, units):
    assert limits.lease_target(rate, limit) == units
