from cortex_gateway.domain.balancing import (
    CLOSED,
    BreakerPolicy,
    RetryBudget,
    allows,
    next_chance,
    on_attempt,
    on_failure,
)

POLICY = BreakerPolicy(failures=3, cooldown_s=2.0)


def test_it_opens_after_consecutive_failures_and_lets_one_probe_through():
    breaker = CLOSED
    for _ in range(2):
        breaker = on_failure(breaker, 10.0, POLICY)
        assert allows(breaker, 10.0)
    breaker = on_failure(breaker, 10.0, POLICY)
    assert not allows(breaker, 11.9)
    assert next_chance(breaker, 11.0) == 12.0
    assert allows(breaker, 12.0)
    probing = on_attempt(breaker, 12.0, POLICY)
    assert not allows(probing, 12.1)
    assert next_chance(probing, 12.1) == 14.0
    assert allows(probing, 14.0)


def test_a_failed_probe_opens_it_again():
    breaker = CLOSED
    for _ in range(3):
        breaker = on_failure(breaker, 0.0, POLICY)
    breaker = on_failure(on_attempt(breaker, 2.0, POLICY), 2.1, POLICY)
    assert not allows(breaker, 4.0)
    assert allows(breaker, 4.1)


def test_a_closed_breaker_reserves_nothing():
    assert on_attempt(CLOSED, 5.0, POLICY) is CLOSED
    assert next_chance(CLOSED, 5.0) == 5.0


def test_the_budget_is_a_share_of_requests():
    budget = RetryBudget(ratio=0.5, ceiling=2.0, balance=2.0)
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]
    budget.deposit()
    assert not budget.withdraw()
    budget.deposit()
    assert budget.withdraw()
    for _ in range(10):
        budget.deposit()
    assert budget.balance == 2.0


def test_a_replica_that_is_gone_is_left_alone_at_once_and_looked_for_less_and_less_often():
    policy = BreakerPolicy(failures=3, cooldown_s=2.0, gone_cooldown_s=0.25)
    breaker, now, pauses = CLOSED, 0.0, []
    for _ in range(6):
        breaker = on_failure(on_attempt(breaker, now, policy), now, policy, gone=True)
        assert not allows(breaker, now)
        pauses.append(next_chance(breaker, now) - now)
        now = next_chance(breaker, now)
        assert allows(breaker, now)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
