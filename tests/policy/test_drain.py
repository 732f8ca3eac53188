"""How fast a queue empties."""

from __future__ import annotations

import pytest

from zmqinfer.policy.drain import DrainRate


def test_a_young_queue_has_no_rate() -> None:
    """And one that never began neither."""
    rate = DrainRate()
    assert rate.calls_per_s(5.0, 100) is None
    rate.begin(5.0, 100)
    assert rate.calls_per_s(5.24, 200) is None
    assert rate.calls_per_s(5.25, 200) == pytest.approx(400)


def test_what_was_answered_before_the_queue_does_not_count() -> None:
    """A gateway at leisure answers few calls and could answer many."""
    rate = DrainRate()
    rate.begin(100.0, 10)
    assert rate.calls_per_s(100.5, 510) == pytest.approx(1_000)
    rate.begin(200.0, 520)
    assert rate.calls_per_s(200.1, 530) is None


def test_it_follows_a_change_within_two_seconds() -> None:
    """As when half of the workers are lost."""
    rate = DrainRate()
    rate.begin(0.0, 0)
    answered = 0.0
    for step in range(400):
        now = step / 100
        answered += 10 if now < 2 else 5
        found = rate.calls_per_s(now, int(answered))
        if 0.5 < now < 2:
            assert found == pytest.approx(1_000, rel=0.05)
        if now > 3.99:
            assert found == pytest.approx(500, rel=0.05)
