"""The product's batcher in virtual time: Poisson arrivals, one engine, a measured curve.

Nothing but the policy differs between runs: arrivals and costs are the same to the last bit.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from bench.batching.curves import MeasuredCurve
from zmqinfer.policy.batching import Batcher, BatchLimits

__all__ = ["POLICIES", "Outcome", "simulated"]

WINDOW_S = 0.020
POLICIES = {
    "adaptive": BatchLimits(),
    "timed": BatchLimits(is_timed=True, max_wait_s=WINDOW_S),
    "at once": BatchLimits(is_timed=True, max_wait_s=0.0),
}


class _Job:
    __slots__ = ("arrived_at", "calls", "deadline", "is_waiting", "rows", "size")

    def __init__(self, arrived_at: float) -> None:
        self.arrived_at = arrived_at
        self.calls = self.rows = 1
        self.size = 0
        self.deadline = float("inf")
        self.is_waiting = False

    def cut(self, calls: int) -> _Job:
        raise AssertionError(calls)  # of one call each


@dataclass(frozen=True, slots=True)
class Outcome:
    """Latencies in seconds, rows a second, and the mean size of a batch."""

    p50_s: float
    p99_s: float
    rows_per_s: float
    mean_batch: float


def simulated(curve: MeasuredCurve, load: float, policy: str, requests: int = 20_000, seed: int = 1) -> Outcome:
    """Runs `requests` arrivals at `load` times the engine's capacity; the first tenth warms up."""
    drawn = random.Random(seed)
    rate = load * curve.capacity
    batcher: Batcher[_Job] = Batcher(POLICIES[policy])
    latencies: list[float] = []
    arrives_at = now = free_at = 1.0
    left = requests
    batches = 0
    arrives_at += drawn.expovariate(rate)
    while left or batcher.rows:
        # The next thing that happens: an arrival, the engine's being free, or the end of a wait.
        due = batcher.wake_at() if now >= free_at else free_at
        now = max(now, min(arrives_at if left else float("inf"), due))
        while left and arrives_at <= now:
            batcher.offer(_Job(arrives_at), "x")
            batcher.rate.count(1, arrives_at)
            arrives_at += drawn.expovariate(rate)
            left -= 1
        if now >= free_at and (taken := batcher.take(now)) is not None:
            _, jobs, rows = taken
            cost_s = curve(rows)
            free_at = now + cost_s
            batcher.curve.learn(rows, cost_s)
            latencies += [free_at - job.arrived_at for job in jobs]
            batches += 1
    counted = np.asarray(latencies[requests // 10 :])
    return Outcome(
        float(np.quantile(counted, 0.5)), float(np.quantile(counted, 0.99)), requests / (now - 1.0), requests / batches
    )
