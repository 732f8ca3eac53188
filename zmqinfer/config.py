"""Every setting, declared once: name, default, unit, meaning and bounds.

Command-line options, `ZMQINFER_...` environment variables, the keys of model.toml
and the table in docs/OPERATIONS.md are all derived from the dataclasses below, so
they cannot disagree. A value out of bounds is one `ConfigError` that says which.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from zmqinfer.errors import ConfigError

__all__ = [
    "DEFAULT_CLIENTS",
    "DEFAULT_WORKERS",
    "ClientSettings",
    "GatewaySettings",
    "ModelSettings",
    "Setting",
    "Settings",
    "WorkerSettings",
    "refuse_unknown",
    "setting",
]

DEFAULT_CLIENTS = "tcp://127.0.0.1:5555"
DEFAULT_WORKERS = "tcp://127.0.0.1:5556"


@dataclass(frozen=True, slots=True)
class Setting:
    """What the dataclass field alone cannot say about a setting."""

    name: str
    default: Any
    meaning: str
    unit: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]

    def check(self, value: object, where: str = "") -> None:
        """Raises `ConfigError` unless `value` has this setting's type and lies within its bounds."""
        name = f"{where}{self.name}"
        wanted = (int, float) if type(self.default) is float else (type(self.default),)
        if type(value) not in wanted:
            raise ConfigError(f"{name} is {value!r}, expected {_TYPE_NAMES[type(self.default)]}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{name} is {value!r}, expected one of: {', '.join(self.choices)}")
        if self.low is not None and self.high is not None:
            assert isinstance(value, int | float), value
            if not self.low <= value <= self.high:
                raise ConfigError(f"{name} is {value}, expected {self.low:,} to {self.high:,}{self._in_unit()}")

    def _in_unit(self) -> str:
        return f" {self.unit}" if self.unit else ""


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}


def setting(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declares one field of a settings class. Numbers need both bounds; both are allowed values."""
    return field(
        default=default,
        metadata={"meaning": meaning, "unit": unit, "low": low, "high": high, "choices": choices},
    )


@dataclass(frozen=True)
class Settings:
    """Base of the groups of settings; checks the bounds when an instance is made."""

    # Before a name in an error: where the value was written.
    PREFIX: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for one in self.describe():
            one.check(getattr(self, one.name), self.PREFIX)

    @classmethod
    def describe(cls) -> Iterator[Setting]:
        """Yields the declared settings in their order."""
        for one in dataclasses.fields(cls):
            yield Setting(one.name, one.default, **one.metadata)

    @classmethod
    def of(cls, given: Self | Mapping[str, Any] | None, name: str) -> Self:
        """Returns settings that were given as such, as a dict of some of their names, or not at all.

        Args:
            name: that of the argument, for messages.
        """
        if given is None:
            return cls()
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"{name} is a {type(given).__name__}, expected a {cls.__name__} or a dict with some of its names"
            )
        refuse_unknown(given, [one.name for one in cls.describe()], f"{name}: ")
        try:
            return cls(**given)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error


def refuse_unknown(table: Iterable[object], known: Sequence[str], where: str) -> None:
    """Raises `ConfigError` for a key that is not known, which is most often a typo."""
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            advice = f"did you mean {close[0]!r}?" if close else "remove it"
            raise ConfigError(f"{where}key {key!r} is unknown, expected one of: {', '.join(known)}; {advice}")


@dataclass(frozen=True)
class GatewaySettings(Settings):
    """One gateway."""

    heartbeat_ms: int = setting(
        500,
        "how often a silent peer is spoken to; it is lost after three times that",
        unit="ms",
        low=20,
        high=60_000,
    )
    max_requests: int = setting(
        100_000, "requests in hand, queued and dispatched", unit="requests", low=1, high=10_000_000
    )
    max_bytes: int = setting(512 * 2**20, "bodies of the requests in hand", unit="bytes", low=2**20, high=2**40)
    max_queued: int = setting(
        10_000, "requests waiting for a worker, for each model", unit="requests", low=1, high=1_000_000
    )
    max_client_requests: int = setting(
        10_000, "requests in hand for one client", unit="requests", low=1, high=1_000_000
    )
    max_client_bytes: int = setting(
        256 * 2**20, "bodies of the requests in hand for one client", unit="bytes", low=2**20, high=2**40
    )
    max_clients: int = setting(4_000, "clients at a time", unit="clients", low=1, high=100_000)
    max_workers: int = setting(256, "workers at a time", unit="workers", low=1, high=4_096)
    max_body_bytes: int = setting(128 * 2**20, "one request's body", unit="bytes", low=1024, high=2**31)
    queue_wait_ms: int = setting(
        1_000, "how long a request waits for the first worker of its model", unit="ms", low=0, high=300_000
    )
    affinity_wait_ms: int = setting(
        20,
        "how long a request with a key waits for its own worker when all are busy",
        unit="ms",
        low=0,
        high=60_000,
    )
    drain_grace_s: float = setting(
        30.0, "how long it may take to drain, until what is held is finished", unit="s", low=0, high=3_600
    )


@dataclass(frozen=True)
class WorkerSettings(Settings):
    """One worker."""

    weight: float = setting(1.0, "share of the keys, relative to the other workers", low=0.01, high=100)
    heartbeat_ms: int = setting(
        500,
        "how often a silent peer is spoken to; it is lost after three times that",
        unit="ms",
        low=20,
        high=60_000,
    )
    max_batch_size: int = setting(
        0, "overrides every model's own max_batch_size; 0 leaves them", unit="rows", low=0, high=65_536
    )
    drain_grace_s: float = setting(
        30.0, "how long it may take to drain, until what is held is finished", unit="s", low=0, high=3_600
    )
    max_batch_s: float = setting(
        300.0,
        "a worker ends with exit code 1 when a batch has run for so long, to be started again; 0: never."
        " No call has a longer deadline; a first batch that compiles may take longer",
        unit="s",
        low=0,
        high=86_400,
    )


@dataclass(frozen=True)
class ClientSettings(Settings):
    """One client, sync or asyncio: the keyword arguments of `Client` and `AsyncClient`."""

    connect_timeout_s: float = setting(
        5.0, "how long the first call waits for a first gateway", unit="s", low=0.01, high=300
    )
    deadline_s: float = setting(30.0, "time limit of a call that names none of its own", unit="s", low=0.001, high=300)
    fail_fast_s: float = setting(
        0.0,
        "when no gateway could be reached for so long, calls end as UNAVAILABLE at once, before their deadlines;"
        " 0: they wait for one",
        unit="s",
        low=0,
        high=300,
    )
    heartbeat_ms: int = setting(
        500, "how often a silent gateway is spoken to while calls are pending", unit="ms", low=20, high=60_000
    )
    shared_memory_mb: int = setting(
        256,
        "most memory for large inputs that workers of this host may read there; 0: they always travel in messages",
        unit="MiB",
        low=0,
        high=65_536,
    )


@dataclass(frozen=True)
class ModelSettings(Settings):
    """The keys of model.toml beside its tables [inputs.*], [outputs.*] and [parameters]."""

    backend: str = setting("python", "what runs the model", choices=("numpy", "python"))
    target: str = setting("", "backend python: module:callable or module:Class")
    max_batch_size: int = setting(32, "most rows in one batch", unit="rows", low=1, high=65_536)
    max_wait_ms: float = setting(
        20.0, "longest time the first request of a batch waits for company", unit="ms", low=0, high=60_000
    )
    policy: str = setting(
        "adaptive",
        "when a free engine runs: adaptive runs at once unless waiting gains throughput that is needed,"
        " timed waits for a full batch or for max_wait_ms",
        choices=("adaptive", "timed"),
    )
    idempotent: bool = setting(
        True, "whether requests may run twice: on another worker when theirs is lost, alone when their batch failed"
    )
    borrows_inputs: bool = setting(
        False,
        "promises that the model neither writes to its inputs nor keeps them after it has answered:"
        " large ones in shared memory are then not copied for it",
    )
    hedge: bool = setting(
        False,
        "whether another worker is asked too for what takes longer than 95 % of the calls; the first answer counts",
    )
    isolation: str = setting(
        "thread",
        "where the model runs: thread is the worker's own process, process is another one, which may crash, hang or"
        " grow without the worker",
        choices=("thread", "process"),
    )
    memory_mb: int = setting(
        0, "isolation process: with more memory the model's process is killed; 0: no limit", unit="MiB", low=0,
        high=2**24,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory_mb and self.isolation == "thread":
            raise ConfigError(
                f"memory_mb is {self.memory_mb}, which needs isolation = 'process'; add it, or drop memory_mb"
            )
