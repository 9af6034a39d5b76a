from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cortex_console.domain.formatting import ago_text, bytes_text, count_text, duration_text, rate_text, time_text
from cortex_console.domain.identity import Me
from cortex_console.domain.model_acts import ModelAct, consequences, offers
from cortex_console.domain.models import ModelFilter, ModelSummary, loads, table_row
from cortex_console.domain.navigation import safe_target, sign_in_address
from cortex_console.domain.states import Tone, model_tone
from cortex_contracts.rights import Right

NOW = datetime(2026, 11, 28, 20, 0, tzinfo=UTC)
ADMIN = Me("a", "admin", "1", must_change_password=False, rights=frozenset(right.value for right in Right))
OPERATOR = replace(ADMIN, role="operator", rights=frozenset({"models:read", "models:operate"}))
VIEWER = replace(ADMIN, role="viewer", rights=frozenset({"models:read"}))
ANSWER = {
    "id": "m1",
    "name": "Tiny",
    "served_model_name": "tiny-1",
    "engine_type": "llamacpp",
    "task": "generate",
    "state": "running",
    "reason": "1 replica healthy",
    "desired_state": "running",
    "archived_at": None,
    "external": False,
    "replicas": 2,
    "version": 4,
    "replica_status": [
        {"node": "n", "state": "started", "verdict": "healthy", "gpus": [0, 1]},
        {"node": "n", "state": "failed", "verdict": None, "gpus": [2]},
    ],
}
MODEL = ModelSummary.of(ANSWER)


@pytest.mark.parametrize(
    ("wanted", "target"),
    [
        ("/models?x=1", "/models?x=1"),
        (None, "/"),
        ("", "/"),
        ("models", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
        ("/ja vascript", "/"),
        ("/sign-in?next=/x", "/"),
        ("/change-password", "/"),
        ("/" + "x" * 600, "/"),
    ],
)
def test_after_signing_in_one_stays_on_this_site(wanted: str | None, target: str) -> None:
    assert safe_target(wanted) == target


def test_the_sign_in_address_remembers_where_one_was() -> None:
    assert sign_in_address() == "/sign-in"
    assert sign_in_address("/models?a=b", "ended") == "/sign-in?next=%2Fmodels%3Fa%3Db&reason=ended"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (bytes_text(None), "–"),
        (bytes_text(512), "512 B"),
        (bytes_text(1536), "1.5 KiB"),
        (bytes_text(25_232_932_864), "23.5 GiB"),
        (count_text(999), "999"),
        (count_text(12_345), "12.3k"),
        (count_text(2_500_000), "2.5M"),
        (rate_text(0), "–"),
        (rate_text(0.003), "<0.01"),
        (rate_text(0.25), "0.25"),
        (rate_text(12.34), "12.3"),
        (rate_text(1234), "1.2k"),
        (duration_text(0.25), "250 ms"),
        (duration_text(2.5), "2.5 s"),
        (duration_text(75), "1 min 15 s"),
        (duration_text(90_000), "1 d 1 h"),
        (ago_text((NOW - timedelta(seconds=2)).isoformat(), NOW), "just now"),
        (ago_text((NOW - timedelta(minutes=3)).isoformat(), NOW), "3 min ago"),
        (ago_text(None, NOW), "–"),
        (time_text("2026-11-28T20:00:01.5Z"), "2026-11-28 20:00:01 UTC"),
        (time_text("nonsense"), "–"),
    ],
)
def test_numbers_and_times_are_readable(made: str, expected: str) -> None:
    assert made == expected


def test_a_model_is_read_from_the_answer() -> None:
    assert (MODEL.healthy, MODEL.gpus, MODEL.wants_to_run) == (1, ("GPU 0", "GPU 1"), True)
    assert ModelSummary.of(ANSWER | {"archived_at": "2026-01-01T00:00:00Z"}).state == "archived"
    assert ModelSummary.of({}).state == "unknown"


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (ModelFilter(), True),
        (ModelFilter(search="TINY healthy"), True),
        (ModelFilter(search="tiny gone"), False),
        (ModelFilter(engine="vllm"), False),
        (ModelFilter(engine="llamacpp", task="generate", state="running"), True),
        (ModelFilter(state="failed"), False),
    ],
)
def test_a_list_is_filtered(wanted: ModelFilter, matches: bool) -> None:
    assert MODEL.matches(wanted) is matches


def test_a_row_shows_rates_by_served_name() -> None:
    found = loads({"models": {"tiny-1": {"requests_per_second": 2.5, "tokens_per_second": 130.0}}})
    row = table_row(MODEL, found["tiny-1"])
    assert (row["requests"], row["tokens"], row["replicas"]) == ("2.5", "130", "1/2")
    assert table_row(MODEL, None)["requests"] == "–"


def acts(model: ModelSummary, me: Me) -> dict[ModelAct, str | None]:
    return {offer.act: offer.why_not for offer in offers(model, me)}


def test_a_viewer_is_offered_nothing() -> None:
    assert offers(MODEL, VIEWER) == []


def test_an_operator_runs_models_and_is_told_why_not_more() -> None:
    offered = acts(MODEL, OPERATOR)
    assert offered[ModelAct.STOP] is None
    assert offered[ModelAct.TEST] is None
    assert "administrator" in str(offered[ModelAct.DELETE])


def test_what_can_be_done_follows_the_state() -> None:
    assert ModelAct.START not in acts(MODEL, ADMIN)
    stopped = replace(MODEL, state="stopped", wants_to_run=False, healthy=0)
    assert ModelAct.STOP not in acts(stopped, ADMIN)
    assert acts(stopped, ADMIN)[ModelAct.TEST] == "No replica is healthy."
    failed = replace(MODEL, state="failed", healthy=0)
    assert offers(failed, ADMIN)[0].label == "Try again"
    assert acts(failed, ADMIN)[ModelAct.STOP] is None
    assert set(acts(replace(MODEL, archived=True), ADMIN)) == {ModelAct.UNARCHIVE, ModelAct.CLONE, ModelAct.DELETE}
    assert "Upstreams" in str(acts(replace(MODEL, external=True), ADMIN)[ModelAct.STOP])


@pytest.mark.parametrize("act", [ModelAct.STOP, ModelAct.RESTART, ModelAct.ARCHIVE, ModelAct.DELETE])
def test_what_has_consequences_says_which(act: ModelAct) -> None:
    told = consequences(act, MODEL)
    assert any("tiny-1" in sentence for sentence in told)


def test_states_have_a_tone() -> None:
    assert [model_tone(state) for state in ("running", "failed", "loading", None)] == [
        Tone.GOOD,
        Tone.BAD,
        Tone.BUSY,
        Tone.NEUTRAL,
    ]
