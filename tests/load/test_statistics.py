"""Exact figures of latencies, and of a scenario over its rounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqinfer.load import statistics
from zmqinfer.load.results import ClosedLoop, LoadResult, Round
from zmqinfer.load.statistics import Histogram, Latencies
from zmqinfer.load.summary import median_latencies, summarize

SAMPLES = st.lists(st.floats(0, 1e6, allow_subnormal=False), max_size=60)


@pytest.mark.parametrize(("per_mille", "needed"), [(500, 20), (950, 200), (990, 1000), (999, 10_000)])
def test_percentile_takes_ten_samples_beyond_it(per_mille: int, needed: int) -> None:
    """One sample fewer than that, and there is no such percentile."""
    ordered = np.arange(1.0, needed + 1.0)

    assert statistics.samples_needed(per_mille) == needed
    assert statistics.percentile(ordered[:-1], per_mille) is None
    assert statistics.percentile(ordered, per_mille) == needed - 10


@given(n=st.integers(0, 3000), per_mille=st.sampled_from([500, 950, 990, 999]))
def test_percentile_is_the_nearest_rank(n: int, per_mille: int) -> None:
    """The smallest sample that at least p of all samples do not exceed; ten or more lie beyond it."""
    ordered = np.arange(1.0, n + 1.0)

    found = statistics.percentile(ordered, per_mille)

    if found is None:
        assert n - math.ceil(n * per_mille / 1000) < 10
    else:
        assert found * 1000 >= n * per_mille > (found - 1) * 1000
        assert n - found >= 10


@pytest.mark.parametrize(
    ("values", "index"),
    [([5.0], 0), ([1.0, 2.0], 0), ([2.0, 1.0], 1), ([3, 1, 2], 2), ([4, 2, 3, 1], 1), ([7, 7], 0)],
)
def test_median_of_an_even_count_is_the_lower_middle(values: list[float], index: int) -> None:
    assert statistics.median_index(values) == index


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([3.0], None), ([0.0, 0.0], None), ([10, 12, 11], 2 / 11), ([5, 5], 0.0)],
)
def test_spread_is_the_range_over_the_median(values: list[float], expected: float | None) -> None:
    assert statistics.spread(values) == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([], None), ([0, 0], None), ([5], 0.0), ([4, 4, 4], 0.0), ([0, 6], 1.0), ([12, 8, 10], 0.2)],
)
def test_imbalance_is_the_busiest_over_the_mean(counts: list[int], expected: float | None) -> None:
    assert statistics.imbalance(counts) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 1], None), ([100, 109, 105], True), ([100, 112, 105], False), ([1, 100, 109, 105], True)],
)
def test_steady_means_that_the_last_three_agree(values: list[float], expected: bool | None) -> None:
    assert statistics.is_steady(values) is expected


def test_no_sample_gives_no_figure() -> None:
    latencies = Latencies.of([])

    assert latencies.count == 0
    assert {latencies.mean_ms, latencies.std_dev_ms, latencies.min_ms, latencies.max_ms} == {None}
    assert set(latencies.percentiles.values()) == {None}
    assert latencies.histogram == Histogram(0, ())
    assert len(latencies.histogram.edges_ms()) == 0


def test_figures_are_those_of_the_samples() -> None:
    samples = np.random.default_rng(1).permutation(np.arange(1.0, 10_001.0))

    latencies = Latencies.of(samples)

    assert (latencies.count, latencies.min_ms, latencies.max_ms) == (10_000, 1.0, 10_000.0)
    assert latencies.mean_ms == pytest.approx(5000.5)
    assert latencies.std_dev_ms == pytest.approx(samples.std())
    assert latencies.percentiles == {"p50": 5000.0, "p95": 9500.0, "p99": 9900.0, "p99.9": 9990.0}
    assert samples[0] != 1.0, "the caller's samples are left in their order"


@pytest.mark.parametrize("bad", [-0.001, math.nan, math.inf])
def test_impossible_latency_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="expected 0 or more and finite"):
        Latencies.of([1.0, bad, 2.0])


@pytest.mark.slow
@given(samples=SAMPLES)
def test_histogram_counts_each_sample_in_its_bucket(samples: list[float]) -> None:
    """Every sample is counted, in a bucket whose borders hold it but for rounding."""
    histogram = Histogram.of(np.asarray(samples, dtype=np.float64))
    edges = histogram.edges_ms()

    assert histogram.total == len(samples)
    for edge, below in zip(edges[1:-1], np.cumsum(histogram.counts)[:-1], strict=True):
        assert sum(s < edge * (1 - 1e-9) for s in samples) <= below <= sum(s <= edge * (1 + 1e-9) for s in samples)
    if samples:
        assert histogram.counts[0]
        assert histogram.counts[-1]
        assert edges[-1] >= max(samples) * (1 - 1e-9)


@given(samples=SAMPLES.filter(bool), step=st.integers(1, 400))
def test_merged_histogram_loses_nothing(samples: list[float], step: int) -> None:
    """Every step-th border stays where it was, and every bar is the sum between its borders."""
    histogram = Histogram.of(np.asarray(samples))

    edges, counts = histogram.merged(step)

    assert counts.tolist() == [sum(histogram.counts[i : i + step]) for i in range(0, len(histogram.counts), step)]
    kept = histogram.edges_ms()[:-1:step]
    assert edges[:-1] == pytest.approx(kept)
    assert len(edges) == len(counts) + 1


@given(samples=SAMPLES)
def test_any_possible_samples_give_figures_in_order(samples: list[float]) -> None:
    """The order and the counts are invariants, checked where the figures are made."""
    assert Latencies.of(samples).count == len(samples)


def test_latencies_that_contradict_themselves_are_refused() -> None:
    histogram = Histogram.of(np.ones(5))

    with pytest.raises(ValueError, match="its histogram holds 5"):
        Latencies(4, 1.0, 0.0, 1.0, None, None, None, None, 1.0, histogram)
    with pytest.raises(ValueError, match="rising order"):
        Latencies(5, 1.0, 0.0, 1.0, 0.5, None, None, None, 1.0, histogram)
    with pytest.raises(ValueError, match="do not fit a count of 5"):
        Latencies(5, None, 0.0, 1.0, None, None, None, None, 1.0, histogram)
    with pytest.raises(ValueError, match="expected -300 to 699"):
        Histogram(699, (1, 1))
    with pytest.raises(ValueError, match="a bucket counts -1"):
        Histogram(0, (1, -1))


def test_scenario_takes_the_figures_of_its_median_round() -> None:
    """Throughput counts right answers alone; failures and wrong answers are summed over all rounds."""

    def timed(wall_s: float, latency_ms: float, **failures: int) -> Round:
        latencies = Latencies.of([latency_ms] * 100)
        return Round(101 + sum(failures.values()), wall_s, latencies, failures, wrong_answers=1)

    rounds = (timed(1.0, 5.0, OVERLOADED=2), timed(2.0, 7.0), timed(1.25, 6.0, OVERLOADED=1, UNAVAILABLE=9))
    scenario = LoadResult("medium", "digits", ClosedLoop(50, 101), rounds, {"a": 200, "b": 100})

    summary = summarize(scenario)

    assert (summary.sent, summary.successes, summary.failed, summary.wrong_answers) == (315, 300, 12, 3)
    assert list(summary.failures.items()) == [("UNAVAILABLE", 9), ("OVERLOADED", 3)]
    assert (summary.median_round, summary.throughput_per_s, summary.wall_s) == (2, 80.0, 4.25)
    assert summary.throughput_spread == pytest.approx(50 / 80)
    assert summary.p50_spread == pytest.approx(2 / 6)
    assert summary.is_steady is False
    assert summary.load_imbalance == pytest.approx(1 / 3)
    assert median_latencies(scenario).p50_ms == 6.0


def test_scenario_without_a_success_has_a_summary() -> None:
    lost = Round(7, 1.0, Latencies.of([]), {"UNAVAILABLE": 7})

    summary = summarize(LoadResult("light", "digits", ClosedLoop(1, 7), (lost,) * 3))

    assert (summary.successes, summary.throughput_per_s, summary.failed) == (0, 0.0, 21)
    assert (summary.throughput_spread, summary.p50_spread, summary.load_imbalance) == (None, None, None)
