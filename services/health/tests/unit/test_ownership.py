"""Who probes what: properties of the assignment, and of what is known of the members."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cortex_health.domain.ownership import Roster, goes_before, owner_of

NAMES = st.text("abcdef0123456789-", min_size=1, max_size=12)
MEMBERS = st.sets(NAMES, min_size=1, max_size=8)
KEYS = st.sets(NAMES, max_size=40)


@given(MEMBERS, KEYS)
def test_every_replica_has_exactly_one_owner_whatever_the_order_of_the_members(members: set[str], keys: set[str]):
    for key in keys:
        owner = owner_of(key, sorted(members))
        assert owner in members
        assert owner == owner_of(key, sorted(members, reverse=True))
        assert [one for one in members if all(goes_before(one, other, key) for other in members - {one})] == [owner]


def test_nobody_owns_anything_without_members():
    assert owner_of("replica", ()) is None


@given(MEMBERS, NAMES, KEYS)
def test_a_member_that_joins_takes_its_share_and_moves_nothing_else(members: set[str], joined: str, keys: set[str]):
    for key in keys:
        before, after = owner_of(key, members), owner_of(key, members | {joined})
        assert after in (before, joined)


@given(MEMBERS, KEYS, st.data())
def test_a_member_that_dies_moves_its_own_replicas_only(members: set[str], keys: set[str], data: st.DataObject):
    dead = data.draw(st.sampled_from(sorted(members)))
    for key in keys:
        before, after = owner_of(key, members), owner_of(key, members - {dead})
        assert before == dead or after == before


def test_the_shares_are_even():
    for count in (2, 3, 5, 8):
        members = [f"health-{n}" for n in range(count)]
        shares = Counter(owner_of(f"0197f2a0-0000-7000-8000-{n:012x}-0", members) for n in range(2000))
        assert max(shares.values()) < 1.25 * 2000 / count
        assert min(shares.values()) > 0.75 * 2000 / count


def roster(**heard: float) -> Roster:
    made = Roster("us", 3.0).hears("us", 0.0)
    for name, at in heard.items():
        made = made.hears(name, at)
    return made.ticks(0.0, audible=True)


def tick(made: Roster, start: float, end: float, *, audible: bool = True) -> Roster:
    steps = int((end - start) / 0.25)
    for n in range(1, steps + 1):
        made = made.ticks(start + n * 0.25, audible=audible)
    return made


def test_nobody_is_a_member_before_the_own_sign_of_life_came_back():
    assert Roster("us", 3.0).hears("them", 0.0).members == frozenset()
    assert Roster("us", 3.0).hears("them", 0.0).hears("us", 0.1).members == {"us", "them"}


def test_a_silent_member_is_gone_after_its_time():
    made = roster(them=0.0)
    made = tick(made, 0.0, 2.75).hears("us", 2.75)
    assert made.members == {"us", "them"}
    assert tick(made, 2.75, 3.25).members == {"us"}


def test_one_that_leaves_is_gone_at_once():
    assert roster(them=0.0).parts_with("them").members == {"us"}


def test_silence_says_nothing_while_nats_is_away():
    made = tick(roster(them=0.0), 0.0, 60.0, audible=False)
    assert made.members == {"us", "them"}
    made = tick(made, 60.0, 62.0)
    assert made.members == {"us", "them"}
    assert tick(made.hears("us", 62.0), 62.0, 64.0).members == {"us"}


def test_after_a_long_sleep_of_this_process_the_others_get_their_time():
    made = tick(roster(them=0.0), 0.0, 1.0).ticks(50.0, audible=True)
    assert made.members == {"us", "them"}


def test_one_that_cannot_be_heard_any_more_owns_nothing_and_the_last_one_owns_all():
    made = roster(them=0.0)
    for second in range(1, 6):
        made = tick(made, second - 1.0, float(second)).hears("them", float(second))
    assert made.members == {"them"}
    assert tick(made, 5.0, 9.0).members == {"us"}
