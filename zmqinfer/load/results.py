"""What a benchmark found, and its file: benchmark_results.json.

The file alone redraws every picture and the report: `read_results(write_results(r, d))`
equals `r`. It holds no single latency, but each round's exact figures and histogram
(`statistics.Latencies`). Each scenario also carries its `statistics.Summary` for other
programs; that is derived, and ignored when the file is read, as are keys not known here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import os
import platform
import subprocess
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from zmqinfer import __version__
from zmqinfer.errors import ConfigError
from zmqinfer.load.statistics import Latencies, summarize

__all__ = [
    "RESULTS_FILE",
    "SCHEMA",
    "Batching",
    "BenchResult",
    "ClosedLoop",
    "Configuration",
    "Machine",
    "OpenLoop",
    "Round",
    "Scenario",
    "Versions",
    "read_results",
    "write_atomically",
    "write_results",
]

SCHEMA = 1
RESULTS_FILE = "benchmark_results.json"


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
class Scenario:
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

    scenarios: tuple[Scenario, ...]
    comparison: tuple[Scenario, ...]
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


def write_results(result: BenchResult, directory: Path) -> Path:
    """Writes benchmark_results.json into `directory`, which is made if it is missing; all or nothing.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = directory / RESULTS_FILE
    document = _laid_out({"schema": SCHEMA, **_encoded(result)})
    write_atomically(path, f"{document}\n".encode())
    return path


def read_results(path: Path) -> BenchResult:
    """Reads the results in a directory, or those in the file itself.

    Raises:
        ConfigError: there is no such file, or it is not what `write_results` writes.
    """
    file = path / RESULTS_FILE if path.is_dir() else path
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError as e:
        raise ConfigError(f"no results at {file}; make some with: zmqinfer bench --out {path}") from e
    except OSError as e:
        raise ConfigError(f"cannot read {file}: {e.strerror}; name the directory of a benchmark") from e
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{file} is not JSON: {e}; repeat the benchmark") from e
    schema = document.get("schema") if isinstance(document, dict) else None
    if type(schema) is not int or schema != SCHEMA:
        hint = "read it with the zmqinfer that wrote it, or repeat the benchmark"
        raise ConfigError(f"{file} has schema {schema!r:.60}, expected {SCHEMA}; {hint}")
    try:
        result: BenchResult = _decoded(BenchResult, document, "")
    except (ValueError, OverflowError) as e:
        raise ConfigError(f"{file}: {e}; repeat the benchmark") from e
    return result


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces the file as a whole, so that a reader never sees half of it.

    Raises:
        ConfigError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(content)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as e:
        raise ConfigError(f"cannot write {path}: {e.strerror}; choose another place with --out") from e


def _encoded(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _encoded(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {**fields, "summary": _encoded(summarize(value))} if isinstance(value, Scenario) else fields
    if isinstance(value, Mapping):
        return {name: _encoded(content) for name, content in value.items()}
    if isinstance(value, tuple):
        return [_encoded(element) for element in value]
    return value


def _laid_out(value: object, indent: str = "\n") -> str:
    """JSON that a person can read: what contains others takes a line each, a list of numbers one line."""
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        lines = (f"{json.dumps(name)}: {_laid_out(content, deeper)}" for name, content in value.items())
        return "{" + deeper + f",{deeper}".join(lines) + indent + "}"
    if isinstance(value, list) and any(isinstance(element, dict | list) for element in value):
        return "[" + deeper + f",{deeper}".join(_laid_out(e, deeper) for e in value) + indent + "]"
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _decoded(kind: Any, value: Any, where: str) -> Any:
    """Builds what the type annotation `kind` says, or raises `ValueError` naming the place."""
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _decoded_dataclass(kind, value, where)
    if origin is types.UnionType:
        for member in arguments:
            with contextlib.suppress(ValueError):
                return _decoded(member, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_decoded(arguments[0], element, f"{where}[{i}]") for i, element in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {name: _decoded(arguments[1], content, f"{where}.{name}") for name, content in value.items()}
    if origin is Batching and value in tuple(Batching):
        return Batching(value)
    if origin is float and type(value) in {int, float} and math.isfinite(value):
        return float(value)
    if type(value) is kind and kind is not float:
        return value
    raise ValueError(f"{where} is {value!r:.60}, expected {_named(kind)}")


def _named(kind: Any) -> str:
    """The JSON word for a kind, as far as there is one."""
    words = {types.NoneType: "null", tuple: "list", Mapping: "object", float: "number"}
    members = get_args(kind) if get_origin(kind) is types.UnionType else (get_origin(kind) or kind,)
    return " or ".join(words.get(member) or member.__name__ for member in members)


def _decoded_dataclass(kind: Any, value: dict[str, Any], where: str) -> Any:
    known = get_type_hints(kind)
    prefix = f"{where}." if where else ""
    for name in known:
        if name not in value:
            raise ValueError(f"{prefix}{name} is missing, expected {_named(known[name])}")
    arguments = {name: _decoded(known[name], value[name], prefix + name) for name in known}
    try:
        return kind(**arguments)
    except ValueError as e:
        raise ValueError(f"{where or 'the result'}: {e}") from e
