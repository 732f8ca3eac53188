"""What came of a scenario, live or simulated, as the results that the report and the pictures are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from zmqinfer.load.results import ClosedLoop, LoadResult, OpenLoop, Round
from zmqinfer.load.statistics import Latencies
from zmqinfer.scenario import Load, Scenario

__all__ = ["Ended", "Status", "measured", "worked"]

# One entry of `status --json` for each gateway.
Status = Sequence[Mapping[str, Any]]


class Ended(NamedTuple):
    """A call that has ended. Those that were to be taken back are none: only the quick ones would be here.

    Attributes:
        sent_at: when it was to be made, in seconds from the beginning of the load.
        failure: the error's code; empty for an answer.
    """

    model: str
    sent_at: float
    took_s: float
    failure: str = ""
    is_wrong: bool = False


def measured(
    scenario: Scenario, load: Load, calls: Iterable[Ended], before: Status, after: Status
) -> tuple[LoadResult, ...]:
    """Returns one set of figures for each model, of the calls made after the warm-up.

    What each worker did is known of all models together, so it is told only if there is one.

    Args:
        before: of all gateways when the warm-up ended.
        after: when the load ended.
    """
    requests, mean_batch_size = worked(before, after) if len(scenario.models) == 1 else ({}, None)
    by_model: dict[str, list[Ended]] = {model.name: [] for model in scenario.models}
    for call in calls:
        if scenario.warm_up_s <= call.sent_at < scenario.duration_s:
            by_model[call.model].append(call)
    return tuple(
        LoadResult(
            scenario.name,
            model,
            ClosedLoop(scenario.in_flight, len(ended))
            if scenario.in_flight
            else OpenLoop(load.rate / len(by_model), scenario.duration_s - scenario.warm_up_s),
            (_round(ended, scenario.warm_up_s, scenario.duration_s),),
            worker_requests=requests,
            mean_batch_size=mean_batch_size,
        )
        for model, ended in by_model.items()
    )


def _round(calls: list[Ended], began_at: float, until: float) -> Round:
    """Returns the figures of calls that were made between two instants; it lasted until the last one had ended."""
    seconds = max([until, *(call.sent_at + call.took_s for call in calls)]) - began_at
    right = [call.took_s * 1e3 for call in calls if not call.failure and not call.is_wrong]
    failures = Counter(call.failure for call in calls if call.failure)
    return Round(len(calls), seconds, Latencies.of(right), dict(failures), sum(call.is_wrong for call in calls))


def worked(before: Status, after: Status) -> tuple[dict[str, int], float | None]:
    """Returns the requests of each worker and the mean batch size between two looks at the gateways' counters."""
    first, last = _counters(before), _counters(after)
    # A worker that joined meanwhile began at nothing; one that restarted counts from nothing again.
    nothing = (0, 0.0, 0.0)
    past = {
        name: then if (then := first.get(name, nothing))[0] <= counts[0] else nothing for name, counts in last.items()
    }
    requests = {name: counts[0] - past[name][0] for name, counts in sorted(last.items())}
    batches = sum(counts[1] for counts in last.values()) - sum(counts[1] for counts in past.values())
    rows = sum(counts[2] for counts in last.values()) - sum(counts[2] for counts in past.values())
    return requests, rows / batches if batches > 0 and rows > 0 else None


def _counters(gateways: Status) -> dict[str, tuple[int, float, float]]:
    found: dict[str, tuple[int, float, float]] = {}
    for gateway in gateways:
        for worker in gateway["workers"]:
            answered, batches, rows = found.get(worker["name"], (0, 0.0, 0.0))
            found[worker["name"]] = (
                answered + worker["answered"],
                batches + worker["batches"],
                rows + worker["batches"] * worker["mean_batch_size"],
            )
    return found
