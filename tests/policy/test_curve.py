"""What a batch costs, and how fast rows arrive."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqinfer.policy.curve import Curve, Rate


def learnt(*batches: tuple[int, float]) -> Curve:
    curve = Curve()
    for rows, seconds in batches:
        curve.learn(rows, seconds)
    return curve


def test_nothing_is_expected_before_the_first_batch() -> None:
    """No promise without a measurement."""
    curve = Curve()

    assert (curve.a_s, curve.b_s, curve.batches, curve.predict(32)) == (0.0, 0.0, 0, 0.0)


@settings(max_examples=60)
@given(
    a_s=st.floats(0, 0.1),
    b_s=st.floats(1e-6, 0.01),
    sizes=st.lists(st.integers(1, 256), min_size=2, max_size=60).filter(lambda sizes: len(set(sizes)) > 1),
)
def test_a_straight_line_is_found(a_s: float, b_s: float, sizes: list[int]) -> None:
    """From batches of two sizes on."""
    curve = learnt(*[(rows, a_s + b_s * rows) for rows in sizes])

    assert curve.batches == len(sizes)
    for rows in (1, 32, 256):
        assert curve.predict(rows) == pytest.approx(a_s + b_s * rows, rel=1e-3, abs=1e-6)


def test_batches_of_one_size_say_nothing_of_the_slope() -> None:
    """The time is then taken as fixed, and right for that size."""
    curve = learnt(*[(8, 0.012)] * 20)

    assert curve.b_s == 0.0
    assert curve.a_s == pytest.approx(0.012)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 1_000), st.floats(0, 10)), min_size=1, max_size=30))
def test_no_measurement_makes_a_negative_cost(batches: list[tuple[int, float]]) -> None:
    """Also when larger batches happened to be faster."""
    curve = learnt(*batches)

    assert curve.a_s >= 0
    assert curve.b_s >= 0
    assert curve.predict(1) <= curve.predict(100)


def test_old_batches_are_forgotten() -> None:
    """A model that became ten times slower is known as such after some hundred batches."""
    curve = learnt(*[(rows, 0.001 * rows) for rows in (1, 32)] * 200)
    for _ in range(200):
        for rows in (1, 32):
            curve.learn(rows, 0.01 * rows)

    assert curve.predict(32) == pytest.approx(0.32, rel=0.05)


def test_a_rate_is_the_rows_of_the_last_window() -> None:
    """Requests of several rows count as such."""
    rate = Rate()
    for step in range(50):
        rate.count(2, 1_000.0 + step * 0.01)

    assert rate.rows_per_s == pytest.approx(200, rel=0.1)


def test_the_first_row_is_no_rate() -> None:
    """A node that just began expects nothing."""
    rate = Rate()
    rate.count(1, 1_000.0)

    assert rate.rows_per_s == 0.0


def test_a_quiet_spell_is_a_rate_too() -> None:
    """What came before it is spread over it."""
    rate = Rate()
    for step in range(20):
        rate.count(1, 1_000.0 + step * 0.01)
    rate.count(1, 1_100.0)

    assert rate.rows_per_s < 1
