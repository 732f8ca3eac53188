"""The figures of one load over its rounds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from zmqinfer.load.results import LoadResult
from zmqinfer.load.statistics import Latencies, imbalance, is_steady, median_index, spread

__all__ = ["Summary", "median_latencies", "summarize"]


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a scenario over its rounds.

    Counts are of all rounds together, failures by code with the most frequent first.
    `throughput_per_s` (right answers alone) and the latencies are those of the round with
    the median throughput, `median_round`. Spreads are (max - min) / median over the rounds.
    `is_steady`: the last three rounds agree within 10 % in throughput and in p50; None if
    there are fewer. `load_imbalance` is max/mean - 1 of the requests per worker.
    """

    sent: int
    successes: int
    failed: int
    wrong_answers: int
    failures: dict[str, int]
    wall_s: float
    median_round: int
    throughput_per_s: float
    throughput_spread: float | None
    p50_spread: float | None
    is_steady: bool | None
    load_imbalance: float | None


def median_latencies(scenario: LoadResult) -> Latencies:
    """The latencies that stand for the scenario: those of its round with the median throughput."""
    throughputs = [r.throughput_per_s for r in scenario.rounds]
    return scenario.rounds[median_index(throughputs)].latencies


def summarize(scenario: LoadResult) -> Summary:
    """Takes the figures of a scenario."""
    rounds = scenario.rounds
    throughputs = [r.throughput_per_s for r in rounds]
    p50s = [r.latencies.p50_ms for r in rounds if r.latencies.p50_ms is not None]
    median_round = median_index(throughputs)
    failures: Counter[str] = Counter()
    for r in rounds:
        failures.update(r.failures)
    steady = is_steady(throughputs)
    return Summary(
        sent=sum(r.sent for r in rounds),
        successes=sum(r.successes for r in rounds),
        failed=failures.total(),
        wrong_answers=sum(r.wrong_answers for r in rounds),
        failures=dict(sorted(failures.items(), key=lambda item: (-item[1], item[0]))),
        wall_s=sum(r.wall_s for r in rounds),
        median_round=median_round,
        throughput_per_s=throughputs[median_round],
        throughput_spread=spread(throughputs),
        p50_spread=spread(p50s),
        is_steady=steady and is_steady(p50s) is not False,
        load_imbalance=imbalance(scenario.worker_requests.values()),
    )
