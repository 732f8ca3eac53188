"""What a benchmark found."""

from __future__ import annotations

import enum
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path

from zmqinfer import __version__
from zmqinfer.load.statistics import Latencies

__all__ = [
    "Batching",
    "BenchResult",
    "ClosedLoop",
    "Configuration",
    "LoadResult",
    "Machine",
    "OpenLoop",
    "Round",
    "Versions",
]


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """So many requests are in flight at any time; a round is so many requests."""

    concurrency: int
    requests: int


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Requests leave at random instants of this mean rate, whether or not earlier ones are answered."""

    rate_per_s: float
    duration_s: float


class Batching(enum.StrEnum):
    """Which side of the comparison of batching a scenario is."""

    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Round:
    """One timed round. Every request sent is one of: a right answer, a failure, a wrong answer.

    `latencies` are those of the right answers alone: `Latencies.of(samples)`. `failures`
    counts by error code.
    """

    sent: int
    wall_s: float
    latencies: Latencies
    failures: Mapping[str, int] = field(default_factory=dict)
    wrong_answers: int = 0

    def __post_init__(self) -> None:
        ended = self.successes + self.failed + self.wrong_answers
        if self.sent != ended:
            raise ValueError(f"sent is {self.sent}, but {ended} requests have an outcome")
        if self.wall_s <= 0:
            raise ValueError(f"wall_s is {self.wall_s}, expected more than 0")
        if min(self.failures.values(), default=0) < 0 or self.wrong_answers < 0:
            raise ValueError("failures and wrong_answers are counts, expected 0 or more")

    @property
    def successes(self) -> int:
        """How many right answers came."""
        return self.latencies.count

    @property
    def failed(self) -> int:
        """How many requests ended with an error."""
        return sum(self.failures.values())

    @property
    def throughput_per_s(self) -> float:
        """Right answers a second."""
        return self.successes / self.wall_s


@dataclass(frozen=True, slots=True)
class LoadResult:
    """One load on one model, in one or more timed rounds.

    `worker_requests` (by worker's name) and `mean_batch_size` (rows) come from the gateway's
    counters before and after the rounds, `client_cpu_s` from the load generator's own process
    over the rounds. `batching` is set for the two sides of the comparison and for nothing else.
    """

    name: str
    model: str
    load: ClosedLoop | OpenLoop
    rounds: tuple[Round, ...]
    worker_requests: Mapping[str, int] = field(default_factory=dict)
    mean_batch_size: float | None = None
    client_cpu_s: float | None = None
    batching: Batching | None = None

    def __post_init__(self) -> None:
        if not self.rounds:
            raise ValueError("a scenario has one round or more, but rounds is empty")
        if min(self.worker_requests.values(), default=0) < 0:
            raise ValueError("worker_requests are counts, expected 0 or more")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the benchmark ran."""

    cores: int
    cpu_model: str
    memory_bytes: int | None
    os: str
    python: str

    @classmethod
    def here(cls) -> Machine:
        """Describes this machine; `cores` are those that this process may use."""
        affinity = getattr(os, "sched_getaffinity", None)
        return cls(
            cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
            cpu_model=_cpu_model(),
            memory_bytes=_memory_bytes(),
            os=platform.platform(),
            python=f"{platform.python_implementation()} {platform.python_version()}",
        )


def _cpu_model() -> str:
    """The processor's name as its maker writes it: /proc on Linux, sysctl on macOS."""
    try:
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
            return done.stdout.strip()
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine() or "unknown"


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class Versions:
    """What the load generator ran with."""

    zmqinfer: str
    pyzmq: str
    libzmq: str
    numpy: str
    msgpack: str

    @classmethod
    def installed(cls) -> Versions:
        """The versions in this process."""
        import zmq

        names = {name: metadata.version(name) for name in ("pyzmq", "numpy", "msgpack")}
        return cls(zmqinfer=__version__, libzmq=zmq.zmq_version(), **names)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the benchmark was pointed at; `settings` are the ones worth knowing later."""

    workers: int
    gateways: tuple[str, ...]
    settings: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BenchResult:
    """All that one `zmqinfer bench` found out.

    `scenarios` are what was asked for. `comparison` holds what is measured only to be set
    beside them: further presets, and with `batching` set the two sides of that comparison.
    `started_at` is an ISO 8601 instant in UTC, such as 2026-01-31T12:00:00+00:00.
    """

    scenarios: tuple[LoadResult, ...]
    comparison: tuple[LoadResult, ...]
    machine: Machine
    versions: Versions
    configuration: Configuration
    started_at: str
    command: str

    def __post_init__(self) -> None:
        if not self.scenarios:
            raise ValueError("a benchmark has one scenario or more, but scenarios is empty")
        if datetime.fromisoformat(self.started_at).utcoffset() != timedelta(0):
            raise ValueError(f"started_at is {self.started_at!r}, expected an instant in UTC")

    @property
    def is_clean(self) -> bool:
        """Whether every request of every scenario got its right answer."""
        return all(r.sent == r.successes for s in (*self.scenarios, *self.comparison) for r in s.rounds)
