"""The books of the mixed load: whatever is lost, doubled or counted wrongly must show."""

from dataclasses import replace
from typing import Any

import pytest

from cortex_testing.mixed_load.books import compare
from cortex_testing.mixed_load.ledger import End, Ledger, Seen
from cortex_testing.mixed_load.memory import slope_per_hour
from cortex_testing.mixed_load.streams import code_of

ANSWERED = Seen("chat", End.ANSWERED, 200, prompt=30, completion=8)
REFUSED = Seen("chat", End.REFUSED, 503, code="model_loading")
BROKEN = Seen("stream", End.BROKEN, 200, prompt=30, completion=3, code="engine_connection_lost")
LEFT = Seen("hang-up in a stream", End.HUNG_UP, 200, prompt=30, completion=5)


def row(status: int, outcome: str, prompt: int, completion: int, *, estimated: bool = False) -> dict[str, Any]:
    return {
        "status": status,
        "outcome": outcome,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "estimated": estimated,
    }


ROWS = {
    "chat": [row(200, "completed", 30, 8), row(503, "upstream_error", 0, 0)],
    "stream": [row(200, "upstream_error", 30, 3, estimated=True)],
    "hang-up in a stream": [row(200, "client_disconnected", 30, 6, estimated=True)],
}


def differences(seen: list[Seen], rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    return compare(Ledger(seen), lambda kind: rows.get(kind, [])).differences


SEEN = [ANSWERED, REFUSED, BROKEN, LEFT]


def test_books_that_agree_show_nothing_and_refusals_before_a_look_need_no_record():
    assert differences(SEEN, ROWS) == []
    draining = Seen("chat", End.REFUSED, 503, code="gateway_draining")
    assert differences([*SEEN, draining, Seen("chat", End.UNREACHED)], ROWS) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error":{"message":"m","type":"server_error","param":null,"code":"gateway_draining"}}', "gateway_draining"),
        (
            b'{"type":"error","error":{"type":"overloaded_error","message":"m","code":"gateway_draining"}}',
            "gateway_draining",
        ),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}', "overloaded_error"),
    ],
)
def test_a_refusal_is_known_by_its_code_in_either_shape(body: bytes, code: str):
    assert code_of(body) == code


@pytest.mark.parametrize(("kind", "index"), [("chat", 0), ("chat", 1), ("stream", 0), ("hang-up in a stream", 0)])
def test_a_record_that_is_lost_or_doubled_shows(kind: str, index: int):
    lost = ROWS | {kind: [one for at, one in enumerate(ROWS[kind]) if at != index]}
    assert differences(SEEN, lost)
    assert differences(SEEN, ROWS | {kind: [*ROWS[kind], ROWS[kind][index]]})


@pytest.mark.parametrize(
    "wrong", [replace(ANSWERED, prompt=31), replace(ANSWERED, completion=7), replace(BROKEN, completion=4)]
)
def test_a_count_that_is_off_by_one_shows(wrong: Seen):
    seen = [wrong if one.kind == wrong.kind and one.end is wrong.end else one for one in SEEN]
    assert differences(seen, ROWS)


def test_who_hung_up_may_have_been_sent_more_than_was_read_but_not_less_nor_beyond_what_was_asked_for():
    assert differences([*SEEN[:3], replace(LEFT, completion=6)], ROWS) == []
    assert differences([*SEEN[:3], replace(LEFT, completion=7)], ROWS)
    beyond = ROWS | {LEFT.kind: [row(200, "client_disconnected", 30, 201)]}
    assert differences(SEEN, beyond)


def test_tokens_of_what_was_never_answered_show():
    assert differences([*SEEN, Seen("malformed", End.REFUSED, 400)], ROWS | {"malformed": [row(400, "rejected", 0, 1)]})


def test_the_slope_is_that_of_the_last_two_thirds():
    rising = [(float(second), 50.0 if second < 600 else 80 + second / 3600 * 3) for second in range(1801)]
    assert slope_per_hour(rising) == pytest.approx(3.0)
    assert slope_per_hour([(0.0, 80.0)]) == 0
