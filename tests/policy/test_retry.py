"""Repeats that cannot make an overload worse by more than a tenth."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqinfer.policy.retry import RetryBudget, pause_s


def test_a_new_client_may_repeat_some_calls() -> None:
    """Ten seconds' worth."""
    budget = RetryBudget(5.0)
    assert budget.spend(30, 5.0)
    assert not budget.spend(1, 5.0)
    assert budget.spend(3, 6.0)
    assert not budget.spend(1, 6.0)


def test_a_tenth_of_the_first_attempts_is_earned() -> None:
    """It is spent first, and what was not used is bounded."""
    budget = RetryBudget(0.0)
    budget.earn(1_000)
    assert budget.spend(130, 0.0)
    assert not budget.spend(1, 0.0)
    budget.earn(10**9)
    assert not budget.spend(1_001, 0.0)
    assert budget.spend(1_000, 0.0)


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1)), max_size=200))
def test_repeats_never_exceed_the_budget(steps: list[tuple[int, float]]) -> None:
    """When everything is refused, and everything that may be is repeated."""
    budget = RetryBudget(0.0)
    now, first, repeats = 0.0, 0, 0
    for calls, passed_s in steps:
        now += passed_s
        first += calls
        budget.earn(calls)
        repeats += sum(budget.spend(1, now) for _ in range(calls))
    assert repeats <= 0.1 * first + 3 * now + 30 + 1e-6


@pytest.mark.parametrize(("attempt", "most_s"), [(1, 0.05), (2, 0.1), (3, 0.2), (20, 1.0)])
def test_pauses_are_spread_from_nothing_to_a_bound_that_doubles(attempt: int, most_s: float) -> None:
    """Another for each call."""
    pauses = [pause_s(b"%d" % number, attempt, None) for number in range(1_000)]
    assert 0 <= min(pauses) < 0.01 * most_s
    assert 0.99 * most_s < max(pauses) <= most_s
    assert statistics.mean(pauses) == pytest.approx(most_s / 2, rel=0.1)


def test_a_pause_that_was_asked_for_is_kept() -> None:
    """Up to half as much longer."""
    pauses = [pause_s(b"%d" % number, 1, 200) for number in range(1_000)]
    assert 0.2 <= min(pauses) < 0.21
    assert 0.29 < max(pauses) <= 0.3
