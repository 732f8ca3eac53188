"""A second worker is asked for the slowest twentieth, within a budget, and not when all are busy."""

from __future__ import annotations

import pytest

from zmqinfer.policy.hedging import Hedging


def learned(count: int = 1_000, calls: int = 1) -> Hedging:
    """One that has seen answers of 1, 2, 3, ... 100 ms, again and again."""
    hedging = Hedging()
    for number in range(count):
        hedging.learn((number % 100 + 1) / 1000, calls, 1 + number % 8, 0.001 * (1 + number % 8))
    return hedging


def test_the_delay_is_what_a_twentieth_exceeds() -> None:
    """Of the last thousand answers; none is known from a few."""
    assert learned(99).delay_s() is None
    assert learned().delay_s() == pytest.approx(0.096, abs=0.001)


def test_the_delay_follows_a_model_that_becomes_slower() -> None:
    """The old answers are forgotten."""
    hedging = learned()
    for _ in range(1_000):
        hedging.learn(0.5, 1, 8, 0.008)

    assert hedging.delay_s() == 0.5


def test_the_budget_is_a_twentieth_of_the_calls() -> None:
    """However many want more."""
    hedging = learned(1_000)

    assert sum(hedging.spend(1) for _ in range(1_000)) in {49, 50}


def test_a_block_costs_what_its_calls_do() -> None:
    """And what is saved for a stall is bounded."""
    hedging = learned(1_000, calls=32)

    assert [hedging.spend(32) for _ in range(3)] == [True, True, False]


def test_nothing_is_hedged_under_load() -> None:
    """More work would make everything slower."""
    hedging = learned()
    hedging.look(850.0, 8)  # of the 1,000 rows a second that a worker can do
    assert not hedging.spend(1)
    hedging.look(750.0, 8)

    assert hedging.spend(1)
