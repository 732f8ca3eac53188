"""What came of a scenario, as figures."""

from __future__ import annotations

from typing import Any

import pytest

from zmqinfer.load.measured import Ended, measured, worked
from zmqinfer.load.results import LoadResult
from zmqinfer.scenario import Load, Scenario, TimedModel

SCENARIO = Scenario(duration_s=4.0, warm_up_s=1.0, models=(TimedModel("m"),))


def found(*calls: Ended) -> LoadResult:
    (only,) = measured(SCENARIO, Load(SCENARIO, 1), calls, [], [])
    return only


def test_the_rate_is_of_answers_not_of_calls() -> None:
    """400 calls a second to a worker that answers 200: the last answers come long after the last call."""
    calls = [Ended("m", number / 400, number / 200 - number / 400) for number in range(1_600)]
    (only,) = found(*calls).rounds
    assert only.sent == 1_200
    assert only.throughput_per_s == pytest.approx(1_200 / 7, rel=0.01)


def test_a_load_that_is_kept_up_with_is_measured_as_it_is() -> None:
    """It lasted as long as it was to last, even if the last call came a little earlier."""
    calls = [Ended("m", number / 100, 0.001) for number in range(400)]
    assert found(*calls).rounds[0].throughput_per_s == pytest.approx(100)


def test_calls_of_the_warm_up_do_not_count() -> None:
    """Nor those after the end, and failures are no answers."""
    only = found(Ended("m", 0.9, 0.1), Ended("m", 1.0, 0.1), Ended("m", 2.0, 0.1, "OVERLOADED"), Ended("m", 4.0, 0.1))
    assert (only.rounds[0].sent, only.rounds[0].successes, only.rounds[0].failures) == (2, 1, {"OVERLOADED": 1})


def status(*workers: tuple[str, int, float, float]) -> list[dict[str, Any]]:
    keys = ("name", "answered", "batches", "mean_batch_size")
    return [{"workers": [dict(zip(keys, worker, strict=True)) for worker in workers]}]


def test_what_workers_did_is_the_difference_of_two_looks() -> None:
    """One that joined, or was restarted, began at nothing."""
    before = status(("steady", 10, 5, 2.0), ("restarted", 100, 50, 2.0))
    after = status(("steady", 30, 10, 3.0), ("restarted", 40, 10, 4.0), ("joined", 8, 1, 8.0))

    requests, mean = worked(before, after)

    assert requests == {"steady": 20, "restarted": 40, "joined": 8}
    assert mean == pytest.approx((20 + 40 + 8) / (5 + 10 + 1))
