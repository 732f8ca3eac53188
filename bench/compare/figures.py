"""One measured cell, and what repeats of it come to."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Cell", "Figures", "medians"]

ROLES = ("client", "gateway", "workers")


@dataclass(frozen=True, slots=True)
class Cell:
    """What was measured.

    Attributes:
        system: who served.
        driver: what called.
        model: echo, mlp or big.
        in_flight: calls that wait for an answer at any time.
    """

    system: str
    driver: str
    model: str
    in_flight: int

    @property
    def name(self) -> str:
        """Who, by whom, what and how many, for people."""
        return f"{self.system} ({self.driver}), {self.model}, {self.in_flight}"


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of it.

    Attributes:
        requests_per_s: right answers only.
        cpu_us: CPU time a request of client, gateway and workers, None where nobody can tell.
        gateway_grew_bytes: the peak of its memory less what it had before, None where nobody can tell.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failures: int
    wrong: int
    cpu_us: dict[str, float | None]
    gateway_grew_bytes: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns what goes to the results' file."""
        return dataclasses.asdict(self)


def medians(repeats: Iterable[Figures]) -> Figures:
    """Returns the median of each figure; failures and wrong answers of all repeats together."""
    runs = list(repeats)
    cpu_us: dict[str, float | None] = {}
    for role in ROLES:
        known = [us for run in runs if (us := run.cpu_us.get(role)) is not None]
        cpu_us[role] = statistics.median(known) if known else None
    grown = [run.gateway_grew_bytes for run in runs if run.gateway_grew_bytes is not None]
    return Figures(
        statistics.median(run.requests_per_s for run in runs),
        statistics.median(run.p50_ms for run in runs),
        statistics.median(run.p99_ms for run in runs),
        sum(run.failures for run in runs),
        sum(run.wrong for run in runs),
        cpu_us,
        statistics.median(grown) if grown else None,
    )
