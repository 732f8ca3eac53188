"""The figures of a benchmark: exact percentiles, spread over rounds, load imbalance.

A percentile is the nearest rank: the p-th of n sorted samples is the one at rank
ceil(n * p). It is a latency that some request really had, and it is given only when
at least `BACKING_SAMPLES` samples lie beyond it: with fewer it says more about luck
than about the system. So p99 takes 1,000 samples and p99.9 takes 10,000.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BACKING_SAMPLES",
    "BUCKETS_PER_DECADE",
    "Histogram",
    "Latencies",
    "imbalance",
    "is_steady",
    "median_index",
    "percentile",
    "samples_needed",
    "spread",
]

BACKING_SAMPLES = 10

# A bucket is 2.3 % wide: finer than a pixel of the picture wherever latencies span a decade.
BUCKETS_PER_DECADE = 100
# 1 microsecond to almost three hours; what lies outside is counted in the first or last bucket.
_LOWEST_BUCKET = -3 * BUCKETS_PER_DECADE
_HIGHEST_BUCKET = 7 * BUCKETS_PER_DECADE - 1

# The rule of perf_analyzer: the last three windows, within 10 %.
_STEADY_ROUNDS = 3
_STEADY_RATIO = 1.10


def samples_needed(per_mille: int) -> int:
    """The fewest samples that leave `BACKING_SAMPLES` beyond this percentile (500 is the median)."""
    return -(-BACKING_SAMPLES * 1000 // (1000 - per_mille))


def percentile(ordered: NDArray[np.float64], per_mille: int) -> float | None:
    """The nearest-rank percentile of sorted samples, or None unless enough lie beyond it.

    `per_mille` is an integer (999 is p99.9), because 0.999 * 10000 is no exact product.
    """
    if len(ordered) < samples_needed(per_mille):
        return None
    rank = -(-len(ordered) * per_mille // 1000)
    return float(ordered[rank - 1])


def median_index(values: Sequence[float]) -> int:
    """Where the median stands; of the two middles of an even count the lower, of equals the first."""
    return sorted(range(len(values)), key=values.__getitem__)[(len(values) - 1) // 2]


def spread(values: Sequence[float]) -> float | None:
    """(max - min) / median, or None for fewer than two values or a median of 0."""
    if len(values) < 2:
        return None
    median = values[median_index(values)]
    return (max(values) - min(values)) / median if median else None


def imbalance(counts: Iterable[int]) -> float | None:
    """How much more than its fair share the busiest had: max/mean - 1, or None if nobody had any."""
    counted = tuple(counts)
    total = sum(counted)
    return max(counted) * len(counted) / total - 1.0 if total else None


def is_steady(values: Sequence[float]) -> bool | None:
    """Whether the last three values lie within 10 % of each other, or None for fewer than three."""
    last = values[-_STEADY_ROUNDS:]
    if len(last) < _STEADY_ROUNDS:
        return None
    return max(last) <= _STEADY_RATIO * min(last)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often which latency came, in logarithmic buckets of a fixed resolution.

    Bucket k holds latencies from 10^(k/100) up to 10^((k+1)/100) ms. `counts[i]` is the
    content of bucket `first + i`; both ends are not empty.
    """

    first: int
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not _LOWEST_BUCKET <= self.first <= _HIGHEST_BUCKET + 1 - len(self.counts):
            raise ValueError(
                f"its buckets run from {self.first} to {self.first + len(self.counts) - 1}, "
                f"expected {_LOWEST_BUCKET} to {_HIGHEST_BUCKET}"
            )
        if self.counts and min(self.counts) < 0:
            raise ValueError(f"a bucket counts {min(self.counts)}, expected 0 or more")

    @classmethod
    def of(cls, samples_ms: NDArray[np.float64]) -> Histogram:
        """Counts the samples."""
        if not len(samples_ms):
            return cls(first=0, counts=())
        exponents = np.log10(np.maximum(samples_ms, 10.0 ** (_LOWEST_BUCKET / BUCKETS_PER_DECADE)))
        buckets = np.floor(exponents * BUCKETS_PER_DECADE).astype(np.int64)
        buckets = np.clip(buckets, _LOWEST_BUCKET, _HIGHEST_BUCKET)
        first = int(buckets.min())
        return cls(first=first, counts=tuple(np.bincount(buckets - first).tolist()))

    @property
    def total(self) -> int:
        """How many samples were counted."""
        return sum(self.counts)

    def edges_ms(self) -> NDArray[np.float64]:
        """The borders of the buckets: one more than there are counts, or none at all."""
        if not self.counts:
            return np.empty(0)
        buckets = np.arange(self.first, self.first + len(self.counts) + 1, dtype=np.float64)
        return np.power(10.0, buckets / BUCKETS_PER_DECADE)

    def merged(self, step: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Borders in ms and counts with `step` buckets in each, for a picture of few bars."""
        counts = np.asarray(self.counts, dtype=np.int64)
        merged = np.pad(counts, (0, -len(counts) % step)).reshape(-1, step).sum(axis=1)
        borders = self.first + step * np.arange(len(merged) + 1, dtype=np.float64)
        return np.power(10.0, borders / BUCKETS_PER_DECADE), merged


@dataclass(frozen=True, slots=True)
class Latencies:
    """What is kept of one round's latencies: the exact figures, and the histogram for the picture.

    Everything but the histogram is computed from the samples themselves. None stands for
    a figure that the samples do not carry: all of them if there were none, a percentile
    that fewer than `BACKING_SAMPLES` lie beyond. `std_dev_ms` is the population's.
    """

    count: int
    mean_ms: float | None
    std_dev_ms: float | None
    min_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None
    histogram: Histogram

    def __post_init__(self) -> None:
        if self.count != self.histogram.total:
            raise ValueError(f"count is {self.count}, but its histogram holds {self.histogram.total}")
        always = (self.mean_ms, self.std_dev_ms, self.min_ms, self.max_ms)
        if any((figure is None) != (self.count == 0) for figure in always):
            raise ValueError(f"mean, std dev, min and max do not fit a count of {self.count}")
        rising = (self.min_ms, self.p50_ms, self.p95_ms, self.p99_ms, self.p999_ms, self.max_ms)
        given = [figure for figure in rising if figure is not None]
        if given != sorted(given) or any(figure < 0 for figure in given):
            raise ValueError("min, percentiles and max are not in rising order from 0")

    @classmethod
    def of(cls, samples_ms: NDArray[np.float64] | Sequence[float]) -> Latencies:
        """Takes the figures of all latencies of a round; keeps no sample.

        Raises:
            ValueError: a latency is negative, infinite or not a number.
        """
        ordered = np.sort(np.asarray(samples_ms, dtype=np.float64))
        if not len(ordered):
            return cls(0, None, None, None, None, None, None, None, None, Histogram.of(ordered))
        if not (ordered[0] >= 0.0 and math.isfinite(ordered[-1])):
            raise ValueError(f"latencies run from {ordered[0]} to {ordered[-1]} ms, expected 0 or more and finite")
        return cls(
            count=len(ordered),
            mean_ms=float(ordered.mean()),
            std_dev_ms=float(ordered.std()),
            min_ms=float(ordered[0]),
            p50_ms=percentile(ordered, 500),
            p95_ms=percentile(ordered, 950),
            p99_ms=percentile(ordered, 990),
            p999_ms=percentile(ordered, 999),
            max_ms=float(ordered[-1]),
            histogram=Histogram.of(ordered),
        )

    @property
    def percentiles(self) -> dict[str, float | None]:
        """The percentiles in ms by the names that people know them by, in rising order."""
        return {"p50": self.p50_ms, "p95": self.p95_ms, "p99": self.p99_ms, "p99.9": self.p999_ms}
