"""What is asked of a soak test's measurements: the judging, apart from the doing.

Everything here is a pure function of what was sampled and counted, so that it can be tried with made-up
series: one that leaks, one that is only noisy.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = [
    "ALL_KINDS_FROM_S",
    "JUDGED_FROM_S",
    "MAX_MORE_DESCRIPTORS",
    "MAX_SLOPE_MB",
    "Fault",
    "Sample",
    "Series",
    "judge_descriptors",
    "judge_faults",
    "judge_memory",
    "judge_processes",
    "more_descriptors",
    "slope_mb",
    "unbalanced",
]

# A process that lived for less is not judged: what it takes to get warm would be taken for growth.
JUDGED_FROM_S = 300.0
# A form of this length must have judged a process of each role; a shorter one may have none that is old enough.
ALL_ROLES_FROM_S = 600.0
# A form of this length has time for each kind of fault with the usual pauses.
ALL_KINDS_FROM_S = 120.0
MIN_KINDS = 2
WARM_UP_PART = 0.25
MAX_SLOPE_MB = 1.0
MAX_MORE_DESCRIPTORS = 5.0
_SLOPE_PER_S = 600.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process had at one instant; `at_s` counts from the start of the load."""

    at_s: float
    memory_mb: float
    descriptors: int
    threads: int


@dataclass(slots=True)
class Series:
    """The samples of one process from its start to its end."""

    name: str
    pid: int
    samples: list[Sample] = field(default_factory=list)

    @property
    def role(self) -> str:
        """What it is: gateway, worker or client."""
        return self.name.partition("_")[0]

    @property
    def lived_s(self) -> float:
        """From its first sample to its last."""
        return self.samples[-1].at_s - self.samples[0].at_s

    @property
    def is_judged(self) -> bool:
        """Whether it lived for long enough."""
        return self.lived_s >= JUDGED_FROM_S


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done to the system under load."""

    at_s: float
    kind: str
    who: str


def slope_mb(samples: Sequence[Sample]) -> float:
    """Returns by how many MB per 10 minutes the memory grows after the warm-up, by least squares."""
    warm_at_s = samples[0].at_s + WARM_UP_PART * (samples[-1].at_s - samples[0].at_s)
    warm = [sample for sample in samples if sample.at_s >= warm_at_s]
    if len(warm) < 2:
        return 0.0
    line = statistics.linear_regression([sample.at_s for sample in warm], [sample.memory_mb for sample in warm])
    return line.slope * _SLOPE_PER_S


def more_descriptors(samples: Sequence[Sample]) -> float:
    """Returns by how much the median of the last quarter's descriptors is above that of the second quarter."""
    began_s, quarter_s = samples[0].at_s, (samples[-1].at_s - samples[0].at_s) / 4
    second = [one.descriptors for one in samples if quarter_s <= one.at_s - began_s <= 2 * quarter_s]
    last = [one.descriptors for one in samples if one.at_s - began_s >= 3 * quarter_s]
    if not second or not last:
        return 0.0
    return statistics.median(last) - statistics.median(second)


def judge_memory(series: Series) -> str:
    """Returns a sentence if the process's memory grows, else nothing."""
    slope = slope_mb(series.samples)
    if slope < MAX_SLOPE_MB:
        return ""
    return (
        f"the memory of {series.name} (process {series.pid}) grew by {slope:.2f} MB per 10 minutes,"
        f" expected less than {MAX_SLOPE_MB:g}"
    )


def judge_descriptors(series: Series) -> str:
    """Returns a sentence if the process's descriptors become more, else nothing."""
    more = more_descriptors(series.samples)
    if more <= MAX_MORE_DESCRIPTORS:
        return ""
    return (
        f"{series.name} (process {series.pid}) had {more:g} more descriptors in its last quarter than in its second,"
        f" expected at most {MAX_MORE_DESCRIPTORS:g}"
    )


def judge_processes(all_series: Iterable[Series], form_s: float) -> list[str]:
    """Returns a sentence for each process that grows, and for each role of which none could be judged."""
    judged = [series for series in all_series if series.is_judged]
    sentences = [judge(series) for series in judged for judge in (judge_memory, judge_descriptors)]
    if form_s >= ALL_ROLES_FROM_S:
        missing = [role for role in ("gateway", "worker", "client") if role not in {one.role for one in judged}]
        sentences += [f"no {role} lived for {JUDGED_FROM_S:g} s, so none was judged" for role in missing]
    return [sentence for sentence in sentences if sentence]


def judge_faults(kinds: Iterable[str], faults: Iterable[Fault], form_s: float) -> list[str]:
    """Returns a sentence for each kind of fault that never happened; a short form needs two kinds only."""
    happened = Counter(fault.kind for fault in faults)
    if form_s >= ALL_KINDS_FROM_S:
        return [f"this fault never happened: {kind}" for kind in kinds if not happened[kind]]
    if len(happened) < MIN_KINDS:
        return [f"{len(happened)} kinds of fault happened, expected {MIN_KINDS} at least"]
    return []


def unbalanced(requests: Mapping[str, int | Mapping[str, int]]) -> list[str]:
    """Returns the equations of a gateway's `requests` that do not hold, with their numbers."""
    numbers = {name: value for name, value in requests.items() if isinstance(value, int)}
    outcomes = requests["outcomes"]
    assert isinstance(outcomes, Mapping)
    received, refused, accepted = (numbers[name] for name in ("received", "refused", "accepted"))
    answered, pending, ended = numbers["answered"], numbers["pending"], sum(outcomes.values())
    equations = {
        f"received {received} == refused {refused} + accepted {accepted}": received == refused + accepted,
        f"accepted {accepted} == answered {answered} + pending {pending}": accepted == answered + pending,
        f"answered {answered} + refused {refused} == outcomes {ended}": answered + refused == ended,
    }
    return [equation for equation, holds in equations.items() if not holds]
