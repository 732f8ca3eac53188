"""How fast a queue empties."""

from __future__ import annotations

import pytest

from zmqinfer.policy.drain import DrainRate


def noted(rate: DrainRate, start: float, step: float, times: int, rows: int, *, held: int = 1, ran: int = 0) -> int:
    """Rows come back at even steps, the first ones at `start`; returns how many there were in all."""
    for number in range(times):
        ran += rows
        rate.note(start + number * step, ran, held)
    return ran


def test_a_young_queue_has_no_rate() -> None:
    """And one that never began neither."""
    rate = DrainRate()
    assert rate.rows_per_s() is None
    rate.begin()
    ran = noted(rate, 5.0, 0.01, 25, 4)
    assert rate.rows_per_s() is None
    noted(rate, 5.25, 0.01, 2, 4, ran=ran)
    assert rate.rows_per_s() == pytest.approx(400)


def test_what_came_back_before_the_queue_does_not_count() -> None:
    """A gateway at leisure answers few calls and could answer many."""
    rate = DrainRate()
    rate.begin()
    ran = noted(rate, 100.0, 0.01, 51, 10)
    assert rate.rows_per_s() == pytest.approx(1_000)
    rate.begin()
    assert rate.rows_per_s() is None
    noted(rate, 200.0, 0.01, 51, 2, ran=ran)
    assert rate.rows_per_s() == pytest.approx(200)


def test_it_is_known_once_the_engines_have_turned_over() -> None:
    """They held 64 rows of which nobody knows when they were begun."""
    rate = DrainRate()
    ran = noted(rate, 0.0, 3.0, 2, 32, held=64)
    assert rate.rows_per_s() is None
    noted(rate, 6.0, 3.0, 1, 32, held=64, ran=ran)
    assert rate.rows_per_s() == pytest.approx(32 / 3)


def test_it_is_the_same_wherever_in_a_batch_it_is_asked() -> None:
    """Nothing comes between two batches, and that is no slower pace."""
    rate = DrainRate()
    ran = noted(rate, 0.0, 0.3, 12, 32, held=64)
    for _ in range(20):
        assert rate.rows_per_s() == pytest.approx(32 / 0.3)
        ran = noted(rate, rate._last[0] + 0.3, 0.3, 1, 32, held=64, ran=ran)


@pytest.mark.parametrize("before", [0.01, 0.2])
def test_it_follows_a_change_within_two_seconds(before: float) -> None:
    """As when half of the workers are lost."""
    rate = DrainRate()
    ran = noted(rate, 0.0, before, int(2 / before), 10)
    assert rate.rows_per_s() == pytest.approx(10 / before)
    noted(rate, 2.0 + before, 2 * before, int(1 / before) + 2, 10, ran=ran)
    assert rate.rows_per_s() == pytest.approx(5 / before, rel=0.05)


def test_long_batches_are_measured_over_some_of_them() -> None:
    """A window of a second would hold one, or none."""
    rate = DrainRate()
    noted(rate, 0.0, 2.0, 30, 8, held=16)
    assert rate.rows_per_s() == pytest.approx(4.0)


def test_a_pause_begins_it_anew() -> None:
    """Nobody worked, or this node did not look: that is no slower pace."""
    rate = DrainRate()
    ran = noted(rate, 0.0, 0.01, 100, 10)
    ran = noted(rate, 2.0, 0.01, 1, 10, ran=ran)
    assert rate.rows_per_s() is None
    noted(rate, 2.01, 0.01, 30, 10, ran=ran)
    assert rate.rows_per_s() == pytest.approx(1_000)
