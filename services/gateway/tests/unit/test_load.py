"""What others do at a replica, from the engine's reports; and the figures kept per fleet."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_contracts.documents import EngineLoad
from cortex_gateway.admission import GatePolicy
from cortex_gateway.domain.load import FRESH_S, STALE_S, foreign_at, note_report
from cortex_gateway.domain.routing import Keys, RoutingTable, build_table
from cortex_gateway.fleet import Affinity, Fleet, FleetPolicy, Fleets

BRIEF = settings(max_examples=40, deadline=None)


@BRIEF
@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_only_what_cannot_be_ours_is_foreign(running, waiting, own):
    report = note_report(EngineLoad(running=running, waiting=waiting), own, 10.0, None)
    assert report.foreign == max(0, running + waiting - own)
    assert foreign_at(report, 10.0 + FRESH_S) == report.foreign
    assert foreign_at(report, 10.0 + STALE_S) == 0
    ages = [foreign_at(report, 10.0 + age) for age in range(40)]
    assert ages == sorted(ages, reverse=True)


def test_an_engine_that_says_nothing_has_no_foreign_load():
    assert note_report(EngineLoad(), 0, 0.0, None).foreign == 0


def test_a_report_told_again_keeps_its_age():
    first = note_report(EngineLoad(running=4), 0, 0.0, None)
    assert note_report(EngineLoad(running=4), 0, 5.0, first) is first
    assert note_report(EngineLoad(running=5), 0, 5.0, first).noted_at == 5.0


@pytest.fixture
def table(model, replica, verdict):
    def make(*loads: dict[str, int], since: str | None = None, **fields: object) -> RoutingTable:
        extra = {} if since is None else {"since": since}
        count = range(len(loads))
        return build_table(
            {"m1": model(**fields)},
            {f"m1-{n}": replica(ordinal=n) for n in count},
            {f"m1-{n}": verdict(ordinal=n, load=loads[n], **extra) for n in count},
            Keys(lambda replica_id, spec_hash: "k", lambda sealed: None),
        )

    return make


def fleets(**policy: int) -> Fleets:
    return Fleets(FleetPolicy(**policy), GatePolicy())  # type: ignore[arg-type]


def take(fleet: Fleet, affinity: Affinity | None = None) -> int:
    index = fleet.choose((), affinity)
    assert index is not None
    fleet.take(fleet.targets[index].incarnation)
    return index


async def test_requests_of_other_gateways_count(table):
    slots = {"slots_total": 8}
    made = fleets()
    fleet = made.of(table({"running": 3, **slots}, {"running": 0, **slots}).routes[0])
    assert fleet.loads == (3, 0)
    assert [take(fleet) for _ in range(3)] == [1, 1, 1]
    assert {take(fleet), take(fleet)} == {0, 1}


async def test_our_own_requests_in_a_report_do_not_count_twice(table):
    made = fleets()
    first = table({}, {})
    fleet = made.of(first.routes[0])
    names = [target.incarnation for target in fleet.targets]
    for _ in range(4):
        fleet.take(names[0])
    for _ in range(3):
        fleet.give(names[0])
    fleet = made.of(table({"running": 4}, {"running": 0}).routes[0])
    assert fleet.loads == (1, 0)
    for _ in range(2):
        fleet._refresh()  # two seconds later
    fleet = made.of(table({"running": 3}, {"running": 0}).routes[0])
    assert fleet.loads == (3, 0)


async def test_counts_survive_a_new_table_and_a_new_life_starts_at_zero(table):
    made = fleets()
    fleet = made.of(table({}, {}).routes[0])
    old = [target.incarnation for target in fleet.targets]
    for name in old:
        fleet.take(name)
    assert made.of(table({"running": 1}, {}).routes[0]).loads == (1, 1)
    fleet = made.of(table({}, {}, since="2027-01-01T00:00:00Z").routes[0])
    assert fleet.loads == (0, 0)
    fleet.give(old[0])
    assert fleet.loads == (0, 0)


async def test_room_is_the_slots_of_all_replicas_less_what_others_use(table):
    made = fleets(default_slots=10)
    gate = made.of(table({"slots_total": 4}, {"slots_total": 4, "running": 3}).routes[0]).gate
    assert sum(gate.try_enter() for _ in range(20)) == 5
    assert sum(made.of(table({}).routes[0]).gate.try_enter() for _ in range(20)) == 3, (
        "what was left to others counts half"
    )


async def test_a_conversation_stays_where_its_prefix_was_seen(table):
    made = fleets()
    fleet = made.of(table({}, {}, {}, {}, routing_policy="prefix_affinity").routes[0])
    bodies = [b'{"messages":[{"role":"user","content":"%d"},' % n + b"x" * 3000 for n in range(40)]
    first = [fleet.choose((), Affinity(body=body)) for body in bodies]
    assert len(set(first)) > 1
    assert [fleet.choose((), Affinity(body=body + b"more" * 700)) for body in bodies] == first


async def test_a_conversation_that_had_to_move_stays_where_it_went(table):
    made = fleets()
    fleet = made.of(table({}, {}, {}, routing_policy="prefix_affinity").routes[0])
    body = b'{"messages":[{"role":"user","content":"hello"},' + b"x" * 3000
    home = take(fleet, Affinity(body=body))
    for _ in range(6):
        fleet.take(fleet.targets[home].incarnation)
    moved = take(fleet, Affinity(body=body + b"y" * 2000))
    assert moved != home
    for _ in range(7):
        fleet.give(fleet.targets[home].incarnation)
    assert take(fleet, Affinity(body=body + b"y" * 2000 + b"z" * 2000)) == moved


async def test_two_gateways_choose_alike(table):
    route = table({}, {}, {}, {}, routing_policy="prefix_affinity").routes[0]
    one, other = fleets().of(route), fleets().of(route)
    asked = [Affinity(session=b"s%d" % n) for n in range(30)] + [Affinity(cache_key=b"c%d" % n) for n in range(30)]
    asked += [Affinity(body=b'{"messages":[{"role":"user","content":"%d"}]}' % n) for n in range(30)]
    for affinity in asked:
        assert one.choose((), affinity) == other.choose((), affinity)


async def test_a_session_pins_under_every_policy_and_a_body_only_with_affinity(table):
    fleet = fleets().of(table({}, {}, {}).routes[0])
    pinned = {take(fleet, Affinity(session=b"me", body=b"{}")) for _ in range(20)}
    assert len(pinned) == 1
    assert len({take(fleet, Affinity(body=b'{"messages":[')) for _ in range(60)}) == 3


async def test_a_model_that_is_gone_is_forgotten_and_nobody_waits_for_it(table):
    made = fleets(default_slots=1)
    fleet = made.of(table({}).routes[0])
    assert fleet.gate.try_enter()
    made.on_swap(RoutingTable())
    assert made.of(table({}).routes[0]) is not fleet
    await asyncio.sleep(0)
