"""Why a model is in its state, as a table of histories."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cortex_contracts.diagnosis import Diagnosis
from cortex_contracts.enums import ModelState
from cortex_registry.domain.eventlog import LoggedEvent
from cortex_registry.domain.why import (
    MAX_DEPTH,
    Asked,
    History,
    Kind,
    Present,
    Why,
    WhyNode,
    build_why,
    decisive,
)
from cortex_registry.domain.why_words import event_sentence

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
NOW = START + timedelta(minutes=5)
DIAGNOSIS = {"code": "out_of_memory", "message": "The GPU has too little memory.", "fix": "Lower context_size."}


def asked(version: int, action: str, *changed: str, follow_ups: int = 0) -> Asked:
    at = START + timedelta(seconds=version)
    return Asked(version, action, "alice", at, f"r{version}", "10.0.0.1", changed, follow_ups)


START_IT = asked(2, "model.start", "desired_state")


def event(number: int, topic: str, cause: int | None = None, **data: Any) -> LoggedEvent:
    replica = data.get("replica_id")
    return LoggedEvent(
        sequence=number,
        event_id=f"e{number}",
        type=f"{topic}.v1",
        topic=topic,
        subject="m",
        source="cortex/x/y",
        time=START + timedelta(seconds=2 + number),
        aggregate_version=2 if topic == "model.updated" else 0,
        correlation_id="r2",
        causation_id=f"e{cause}" if cause is not None else None,
        traceparent=None,
        model_id="m",
        replica_id=replica,
        key_id=None,
        data=data,
    )


def present(state: ModelState | None, reason: str = "because", **changes: Any) -> Present:
    return Present("gpt", state, reason, START, **changes)


def why(now: Present, *events: LoggedEvent, of: Asked | None = START_IT, later: tuple[Asked, ...] = ()) -> Why:
    return build_why(now, History(of, later, events), now=NOW)


def outline(node: WhyNode | None) -> Any:
    assert node is not None
    name = (node.type or "asked").removesuffix(".v1")
    return {name: [outline(child) for child in node.children]} if node.children else name


UPDATED = event(1, "model.updated")
CREATED = event(2, "container.created", 1, replica_id="m-0", ordinal=0, container="c", node="n")
STARTED = event(3, "container.started", 2, replica_id="m-0", ordinal=0, node="n")
HEALTHY = event(4, "upstream.healthy", 3, replica_id="m-0", reason="ok")
RUNNING = event(5, "model.state_changed", 4, state="running", previous="loading", reason="1 replica healthy")
FAILED = event(
    6, "container.failed", 3, replica_id="m-0", ordinal=0, reason="it died", exit_code=1, diagnosis=DIAGNOSIS
)
REJECTED = event(2, "placement.rejected", 1, ordinal=0, reason="no GPU set fits", would_fit=["ngl=20"])


def test_a_chain_is_a_tree_of_causes_and_steps_of_one_container_stand_beside_each_other() -> None:
    answer = why(present(ModelState.RUNNING), UPDATED, CREATED, STARTED, HEALTHY, RUNNING, FAILED)
    assert outline(answer.root) == {
        "model.updated": [
            "container.created",
            {"container.started": [{"upstream.healthy": ["model.state_changed"]}]},
            "container.failed",
        ]
    }
    assert answer.root is not None
    assert answer.root.sentence == "alice asked it to run."
    assert answer.root.details["address"] == "10.0.0.1"
    started = answer.root.children[1]
    assert (started.kind, started.after_s, started.causation_id) == (Kind.CONTAINER, 1.0, "e2")


@pytest.mark.parametrize(
    ("now", "events", "headline", "step"),
    [
        (
            present(ModelState.RUNNING, "1 replica healthy"),
            (UPDATED, CREATED),
            "gpt runs: 1 replica healthy. alice asked it to run at 12:00:02 UTC.",
            "Nothing to do.",
        ),
        (
            present(ModelState.FAILED),
            (UPDATED, CREATED, STARTED, FAILED),
            "gpt failed: The GPU has too little memory. alice asked it to run",
            "Lower context_size.",
        ),
        (present(ModelState.FAILED, "it died"), (UPDATED,), "gpt failed: it died. alice", "cortex model logs gpt"),
        (
            present(ModelState.FAILED, diagnosis=Diagnosis(code="x", message="Disk full.", fix="Make room.")),
            (),
            "gpt failed: Disk full. alice",
            "Make room.",
        ),
        (
            present(ModelState.DEGRADED, "1 of 2 replicas healthy; it died"),
            (UPDATED,),
            "gpt is degraded: 1 of 2 replicas healthy; it died. alice",
            "cortex model logs",
        ),
        (present(ModelState.STARTING), (UPDATED, REJECTED), "gpt cannot start: no GPU set fits. alice", "ngl=20"),
        (present(ModelState.FAILED, "no place"), (UPDATED, REJECTED), "gpt cannot start: no GPU", "ngl=20"),
        (present(ModelState.STARTING), (UPDATED, REJECTED, STARTED), "gpt is starting: because.", "Wait"),
        (present(ModelState.STARTING), (UPDATED,), "gpt is starting: because. alice", "No orchestrator"),
        (present(ModelState.LOADING), (UPDATED, STARTED), "gpt is loading: because. alice", "cortex events"),
        (present(ModelState.PULLING), (UPDATED,), "gpt is pulling: because. alice", "Wait"),
        (present(None, "not observed yet"), (), "What gpt does now cannot be observed: not observed yet.", "status"),
    ],
)
def test_the_headline_says_why_and_what_next(
    now: Present, events: tuple[LoggedEvent, ...], headline: str, step: str
) -> None:
    answer = why(now, *events)
    assert answer.headline.startswith(headline)
    assert step in answer.next_step


@pytest.mark.parametrize(
    ("of", "state", "headline"),
    [
        (asked(1, "model.create"), ModelState.STOPPED, "gpt has not been asked to run. alice created it at 12:00:01"),
        (asked(3, "model.stop"), ModelState.STOPPED, "gpt is stopped. alice asked it to stop at 12:00:03 UTC."),
        (asked(3, "model.stop"), ModelState.STOPPING, "gpt is stopping: stopped. alice asked it to stop"),
        (None, ModelState.STOPPED, "gpt is stopped."),
        (None, ModelState.RUNNING, "gpt runs: stopped."),
        (asked(3, "model.conjure"), ModelState.RUNNING, "gpt runs: stopped. alice did model.conjure at"),
    ],
)
def test_a_model_that_does_not_run_says_who_wanted_that(of: Asked | None, state: ModelState, headline: str) -> None:
    answer = why(present(state, "stopped"), of=of)
    assert answer.headline.startswith(headline)
    assert (answer.root is None) is (of is None)


def test_the_state_goes_back_to_the_change_that_asked_for_it_and_later_ones_are_told_apart() -> None:
    rename, start, create = asked(3, "model.update", "name"), START_IT, asked(1, "model.create")
    assert decisive([rename, start, create]) is start
    assert decisive([asked(4, "model.update", "ngl", follow_ups=3), start, create]) == asked(
        4, "model.update", "ngl", follow_ups=3
    )
    assert decisive([asked(2, "model.update", "name"), create]) == asked(2, "model.update", "name")
    assert decisive([]) is None
    answer = why(present(ModelState.RUNNING), later=(rename,))
    assert [node.sentence for node in answer.later] == ["alice changed name."]


def test_an_event_without_a_known_cause_stands_under_what_came_before_on_its_replica() -> None:
    suspected = event(9, "upstream.suspected", None, replica_id="m-0", reason="refused")
    stray = event(10, "model.demanded", 77, served_model_name="gpt")
    answer = why(present(ModelState.RUNNING), UPDATED, CREATED, STARTED, suspected, stray)
    assert outline(answer.root) == {
        "model.updated": ["container.created", {"container.started": ["upstream.suspected"]}, "model.demanded"]
    }


def test_a_long_chain_stays_shallow_and_a_cause_that_comes_later_is_no_loop() -> None:
    loop = [event(1, "moon.a", 2), event(2, "moon.b", 1)]
    assert outline(why(present(None), *loop).root) == {"asked": [{"moon.a": ["moon.b"]}]}
    stairs = [event(number, "moon.rose", number - 1) for number in range(1, 200)]
    root = why(present(None), *stairs).root

    def depth(node: WhyNode) -> int:
        return 1 + max((depth(child) for child in node.children), default=0)

    assert root is not None
    assert depth(root) <= MAX_DEPTH + 1


def test_an_older_version_tells_what_it_was() -> None:
    answer = build_why(present(ModelState.STOPPED), History(START_IT, (), (UPDATED,)), now=NOW, past=True)
    assert (answer.headline, answer.next_step) == ("alice asked it to run at 12:00:02 UTC.", "")


@pytest.mark.parametrize(
    ("topic", "data", "sentence"),
    [
        ("container.failed", FAILED.data, "Replica 0 failed: it died (exit code 1). The GPU has too little memory. "),
        ("container.failed", {"replica_id": "m-2", "reason": "x", "oom_killed": True}, "Replica 2 failed: x (killed"),
        ("container.pulling", {"image": "i", "current_bytes": 5, "total_bytes": 10}, "The image i was pulled for"),
        ("container.pulling", {"image": "i", "current_bytes": 5, "total_bytes": 0}, "The image i was pulled for"),
        (
            "container.stopped",
            {"ordinal": 1, "reason": "asked", "exit_code": 0},
            "The engine of replica 1 stopped: ask",
        ),
        ("upstream.unhealthy", {"replica_id": "m-0", "reason": "a\nb"}, "Replica 0 does not answer its health probe w"),
        ("moon.landed", {"anything": 1}, "moon.landed happened."),
        ("container.started", {}, "The engine of replica ? started on node."),
        ("placement.rejected", {"reason": ["not", "text"]}, "No place was found for replica ?: ['not', 'text']."),
    ],
)
def test_every_event_is_one_sentence_whatever_it_holds(topic: str, data: dict[str, Any], sentence: str) -> None:
    told = event_sentence(topic, data)
    assert told.startswith(sentence)
    assert told.endswith(".")
    assert "\n" not in told
