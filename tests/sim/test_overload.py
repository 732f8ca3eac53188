"""Goodput under more load than the workers can take, in virtual time."""

from __future__ import annotations

import statistics

import pytest

from tests.sim.towns import ask, go, town
from zmqinfer.errors import Status
from zmqinfer.scenario import TimedModel

MODEL = TimedModel("sleep", a_ms=10.0, b_ms=0.0, max_batch_size=4)
WORKERS = 2
CAPACITY_PER_S = WORKERS * MODEL.max_batch_size / (MODEL.a_ms / 1000)
STEP_S = 0.01
DEADLINE_S = 0.5


def loaded(times: float, seconds: float = 3.0) -> tuple[float, list[float]]:
    """Calls so many times what the workers can take; returns right answers a second, and how long refusals took."""
    world = town(workers=WORKERS, models=(MODEL,))
    calls = []
    owed = 0.0
    began_at = world.timeline.now
    while world.timeline.now < began_at + seconds:
        owed += times * CAPACITY_PER_S * STEP_S
        calls += ask(world, int(owed), deadline_s=DEADLINE_S)
        owed -= int(owed)
        go(world, STEP_S)
    go(world, 2 * DEADLINE_S)
    world.history.check_all_ended()
    later = [call for call in calls if call.sent_at > began_at + 1.0]
    right = sum(call.status is Status.OK for call in later)
    refused = [call.ended_at - call.sent_at for call in later if call.status is Status.OVERLOADED]
    return right / (seconds - 1.0), refused


@pytest.mark.slow
def test_goodput_holds_whatever_the_load() -> None:
    """At 2, 5 and 10 times the capacity nine tenths of the peak, and refusals come at once."""
    peak, refused = loaded(0.95)
    assert peak == pytest.approx(0.95 * CAPACITY_PER_S, rel=0.03)
    assert not refused
    for times in (2, 5, 10):
        rate, refused = loaded(times)
        assert rate > 0.9 * peak, f"{rate:.0f} of {peak:.0f} a second at {times} times the capacity"
        assert statistics.median(refused) < 0.01
        # Those that were asked for again take the pause, and there is a budget for them.
        assert statistics.quantiles(refused, n=100)[84] < 0.05
