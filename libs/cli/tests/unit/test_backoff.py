import pytest

from cortex_cli.stack.backoff import DELAYS_S, GIVE_UP_AFTER, STABLE_AFTER_S, decide, describe_exit


@pytest.mark.parametrize(
    ("streak", "uptime_s", "was_ready", "delay_s", "next_streak", "give_up"),
    [
        pytest.param(0, 1.0, True, DELAYS_S[0], 1, False, id="the first death is repaired at once"),
        pytest.param(1, 1.0, True, DELAYS_S[1], 2, False, id="the next waits longer"),
        pytest.param(
            40, 1.0, True, DELAYS_S[-1], 41, False, id="the delay is bounded and one that ran is never given up"
        ),
        pytest.param(9, STABLE_AFTER_S, True, DELAYS_S[0], 1, False, id="a long life starts anew"),
        pytest.param(
            GIVE_UP_AFTER - 1, 0.2, False, DELAYS_S[4], GIVE_UP_AFTER, True, id="one that never ran is given up"
        ),
        pytest.param(GIVE_UP_AFTER - 2, 0.2, False, DELAYS_S[3], GIVE_UP_AFTER - 1, False, id="but not too early"),
    ],
)
def test_restart_decisions(
    streak: int, uptime_s: float, was_ready: bool, delay_s: float, next_streak: int, give_up: bool
) -> None:
    decision = decide(streak=streak, uptime_s=uptime_s, how="ended with code 1", was_ready=was_ready)
    assert (decision.delay_s, decision.streak, decision.give_up) == (delay_s, next_streak, give_up)
    assert decision.reason.startswith("ended with code 1 after")


@pytest.mark.parametrize(
    ("code", "text"), [(-9, "was killed by signal 9"), (0, "ended with code 0"), (3, "ended with code 3")]
)
def test_how_a_process_ended_is_said_in_words(code: int, text: str) -> None:
    assert describe_exit(code) == text
