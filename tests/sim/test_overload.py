"""Goodput under more load than the workers can take, in virtual time."""

from __future__ import annotations

import statistics

import pytest

from tests.sim.towns import ask, go, town
from zmqinfer.errors import Status
from zmqinfer.scenario import TimedModel

WORKERS = 2
MAX_BATCH_SIZE = 4
STEP_S = 0.01


def capacity_per_s(a_ms: float) -> float:
    return WORKERS * MAX_BATCH_SIZE / (a_ms / 1000)


def loaded(a_ms: float, times: float, seconds: float, deadline_s: float) -> tuple[float, list[float]]:
    """Calls so many times what the workers can take; returns right answers a second, and how long refusals took.

    Without the first fifth of the time, in which a new queue may refuse nobody.
    """
    world = town(workers=WORKERS, models=(TimedModel("sleep", a_ms, 0.0, MAX_BATCH_SIZE),))
    calls = []
    owed = 0.0
    began_at = world.timeline.now
    while world.timeline.now < began_at + seconds:
        owed += times * capacity_per_s(a_ms) * STEP_S
        calls += ask(world, int(owed), deadline_s=deadline_s)
        owed -= int(owed)
        go(world, STEP_S)
    go(world, 2 * deadline_s)
    world.history.check_all_ended()
    later = [call for call in calls if call.sent_at > began_at + seconds / 5]
    right = sum(call.status is Status.OK for call in later)
    refused = [call.ended_at - call.sent_at for call in later if call.status is Status.OVERLOADED]
    return right / (0.8 * seconds), refused


@pytest.mark.slow
@pytest.mark.parametrize(("a_ms", "seconds", "deadline_s"), [(10.0, 2.0, 0.5), (40.0, 5.0, 0.5), (300.0, 20.0, 5.0)])
def test_goodput_holds_whatever_the_load(a_ms: float, seconds: float, deadline_s: float) -> None:
    """At 2, 5 and 10 times the capacity nine tenths of the peak, and refusals come at once.

    Also where what the workers have, two batches each, is a good part of the time that a call has.
    """
    peak, refused = loaded(a_ms, 0.95, seconds, deadline_s)
    assert peak == pytest.approx(0.95 * capacity_per_s(a_ms), rel=0.03)
    assert not refused
    for times in (2, 5, 10):
        rate, refused = loaded(a_ms, times, seconds, deadline_s)
        assert rate > 0.9 * peak, f"{rate:.0f} of {peak:.0f} a second at {times} times the capacity"
        assert statistics.median(refused) < 0.01
        # Those that were asked for again take the pause, and there is a budget for them.
        assert statistics.quantiles(refused, n=100)[84] < 0.05
