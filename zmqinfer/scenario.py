"""What a scenario file says: how many of each node, which models, what load, which faults.

`zmqinfer simulate` runs it in virtual time, `zmqinfer bench` on real processes; both draw the same numbers from the
same seed. Pure: text in, `Scenario` out, and randomness from a source that is passed in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, NamedTuple, TypeAlias

from zmqinfer.config import GatewaySettings, ModelSettings, Setting, Settings, WorkerSettings, setting
from zmqinfer.errors import ConfigError
from zmqinfer.records import MAX_BUDGET_US
from zmqinfer.tensor import NAME

__all__ = ["FAULTS", "Ask", "Load", "Scenario", "Span", "TimedModel", "settings_of", "source", "whole"]

FAULTS = (
    "crash_worker", "crash_gateway", "crash_client", "freeze_worker", "freeze_gateway", "freeze_client", "slow_worker",
    "hang_worker", "faulty_worker", "stall", "partition", "one_way_up", "one_way_down", "cut", "flap", "drain_worker",
    "drain_gateway", "join_worker", "overload", "poison", "clock_jump",
)  # fmt: skip
_KEYS = 16
# The time limit of patient calls.
PATIENCE_S = 30.0

# One number, or the least and the most of what each seed draws for itself.
Span: TypeAlias = tuple[float, float]

_LONGEST_MS = 3_600_000
_SERVED = {one.name: one for one in ModelSettings.describe()}


def _as_served(name: str) -> Any:
    """Declares a key that model.toml has too, with the same bounds."""
    one = _SERVED[name]
    return setting(one.default, one.meaning, unit=one.unit, low=one.low, high=one.high, choices=one.choices)


@dataclass(frozen=True)
class TimedModel(Settings):
    """A model that takes `a_ms + b_ms * rows` for a batch, and `stall_ms` more for one of `stall_every` batches.

    Raises:
        ConfigError: a value is out of bounds.
    """

    PREFIX: ClassVar[str] = "scenario: models."

    name: str = setting("", "what calls ask for")
    a_ms: float = setting(1.0, "for any batch", unit="ms", low=0, high=_LONGEST_MS)
    b_ms: float = setting(0.1, "more for each row", unit="ms", low=0, high=_LONGEST_MS)
    max_batch_size: int = _as_served("max_batch_size")
    max_wait_ms: float = _as_served("max_wait_ms")
    policy: str = _as_served("policy")
    idempotent: bool = _as_served("idempotent")
    hedge: bool = _as_served("hedge")
    noise: float = setting(0.1, "the part by which times vary to either side", low=0, high=0.99)
    stall_every: int = setting(0, "one batch of so many stalls; 0: none", low=0, high=1_000_000)
    stall_ms: float = setting(0.0, "for so much longer", unit="ms", low=0, high=_LONGEST_MS)

    def __post_init__(self) -> None:
        super().__post_init__()
        # It becomes a folder of this name.
        if not NAME.fullmatch(self.name) or not self.name.strip("."):
            raise ConfigError(f"{self.PREFIX}name is {self.name!r}, expected {NAME.pattern}, and not dots alone")


_MODELS = (
    TimedModel("short", a_ms=0.3, b_ms=0.05),
    TimedModel("middle", a_ms=5.0, b_ms=0.5, max_batch_size=16),
    TimedModel("once", a_ms=2.0, b_ms=0.2, idempotent=False),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario; what is a span is drawn anew for each seed.

    Attributes:
        duration_s: how long calls are made and faults happen; the run lasts until everything has ended.
        warm_up_s: figures are of the calls made after so long.
        rate: calls a second, of all clients, whether or not earlier ones are answered.
        in_flight: calls that wait for their answers at any time, of all clients, instead of `rate`; 0: as `rate` says.
        burst: most calls of one instant.
        keyed: the part of the calls that have a routing key.
        cancelled: the part of the calls that are taken back.
        deadline_s: time limits of the calls.
        promised_s: calls with at least this time limit have to be answered right, whatever happens; 0: none has.
        most_kills: so many workers may a call of the kind poison end; 0: any number.
        patient: the part of the calls with a time limit that outlasts all faults.
        latency_ms: from one process's send to another's poll, drawn for each message; in virtual time alone, as faults.
        gateway: settings of all gateways that are not the usual ones.
        worker: settings of all workers.
        faults: how many of each kind.
        lasts_s: how long faults of a kind last, where that is not as usual.
    """

    name: str = "mixed"
    duration_s: float = 4.0
    warm_up_s: float = 0.0
    gateways: Span = (1, 3)
    workers: Span = (2, 8)
    clients: Span = (1, 4)
    rate: Span = (20, 200)
    in_flight: int = 0
    burst: int = 12
    keyed: float = 0.2
    cancelled: float = 0.03
    deadline_s: Span = (0.3, 6.0)
    promised_s: float = 0.0
    most_kills: int = 0
    patient: float = 0.3
    models: tuple[TimedModel, ...] = _MODELS
    # Through ZeroMQ's threads and the kernel of two cores that are not busy; bench/calibration.py.
    latency_ms: Span = (0.08, 0.15)
    gateway: Mapping[str, Span] = field(default_factory=dict)
    worker: Mapping[str, Span] = field(default_factory=dict)
    faults: Mapping[str, Span] = field(default_factory=dict)
    lasts_s: Mapping[str, Span] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Scenario:
        """Reads a scenario from the tables of a TOML file.

        Raises:
            ConfigError: an unknown key, or a value that is none.
        """
        values = {key: _value(key, value) for key, value in document.items()}
        scenario = cls(**values)
        names = [model.name for model in scenario.models]
        if not names or len({*names}) != len(names):
            raise ConfigError(f"scenario: the models are {names}, expected one or more, each with a name of its own")
        if scenario.warm_up_s >= scenario.duration_s:
            raise ConfigError(
                f"scenario: warm_up_s is {scenario.warm_up_s}, expected less than duration_s, {scenario.duration_s}"
            )
        return scenario


def _bounds(default: Any, unit: str, low: float | None, high: float | None) -> Setting:
    return Setting("", default, "", unit, low, high, ())


_PART, _COUNT = _bounds(0.0, "", 0, 1), _bounds(0, "", 0, 1_000)
# The bounds of what has one value, and of what may be a span.
_VALUES = {
    "name": _bounds("", "", None, None),
    "duration_s": _bounds(0.0, "s", 0.01, 3_600),
    "warm_up_s": _bounds(0.0, "s", 0, 3_600),
    "in_flight": _bounds(0, "calls", 0, 100_000),
    "burst": _bounds(0, "calls", 1, 10_000),
    **dict.fromkeys(("keyed", "cancelled", "patient"), _PART),
    "promised_s": _bounds(0.0, "s", 0, 300),
    "most_kills": _bounds(0, "workers", 0, 1_000),
}
_SPANS = {
    "gateways": _bounds(0, "", 0, 16),
    "workers": _bounds(0, "", 0, 4_096),
    "clients": _bounds(0, "", 0, 4_000),
    "rate": _bounds(0.0, "calls a second", 0.001, 1_000_000),
    "deadline_s": _bounds(0.0, "s", 0.001, MAX_BUDGET_US / 1e6),
    "latency_ms": _bounds(0.0, "ms", 0.001, 1_000),
}
_TABLES = {
    "gateway": {one.name: one for one in GatewaySettings.describe() if one.low is not None},
    "worker": {one.name: one for one in WorkerSettings.describe() if one.low is not None},
    "faults": dict.fromkeys(FAULTS, _COUNT),
    "lasts_s": dict.fromkeys(FAULTS, _bounds(0.0, "s", 0, 3_600)),
}


def _value(key: str, value: Any) -> Any:
    """Returns what a key of the file stands for."""
    name = f"scenario: {key}"
    if key in _VALUES:
        _check(_VALUES[key], name, value)
        return value
    if key in _SPANS:
        return _span(_SPANS[key], name, value)
    if key == "models":
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            raise ConfigError(f"{name} is {value!r}, expected tables: [[models]]")
        return tuple(_model(table) for table in value)
    if key in _TABLES:
        known = _TABLES[key]
        if not isinstance(value, dict):
            raise ConfigError(f"{name} is {value!r}, expected a table: [{key}]")
        for one in value:
            if one not in known:
                raise ConfigError(f"scenario: unknown {key}.{one}, expected one of: {', '.join(known)}")
        return {one: _span(known[one], f"{name}.{one}", span) for one, span in value.items()}
    expected = ", ".join([*_VALUES, *_SPANS, "models", *_TABLES])
    raise ConfigError(f"scenario: unknown key {key!r}, expected one of: {expected}")


def _check(bounds: Setting, name: str, value: object) -> None:
    dataclasses.replace(bounds, name=name).check(value)


def _span(bounds: Setting, name: str, value: Any) -> Span:
    ends = value if isinstance(value, list) else [value, value]
    if len(ends) != 2:
        raise ConfigError(f"{name} is {value!r}, expected one value, or the least and the most: [1, 3]")
    for end in ends:
        _check(bounds, name, end)
    low, high = ends
    if low > high:
        raise ConfigError(f"{name} is {value!r}, expected the least first")
    return low, high


def _model(table: Mapping[str, Any]) -> TimedModel:
    known = [one.name for one in TimedModel.describe()]
    for key in table:
        if key not in known:
            raise ConfigError(f"scenario: unknown key {key!r} of a model, expected one of: {', '.join(known)}")
    return TimedModel(**table)


def whole(random: Random, span: Span) -> int:
    """Draws a whole number of a span."""
    return random.randint(int(span[0]), int(span[1]))


def source(seed: int, purpose: str) -> Random:
    """Returns what one purpose draws from: of its own, so that a fault less leaves the load as it was."""
    return Random(f"{seed} {purpose}")  # noqa: S311 - a scenario is to be repeatable


def settings_of(scenario: Scenario, random: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws the settings of gateways and of workers, as far as the scenario names them."""
    gateway = {name: _drawn(random, span) for name, span in scenario.gateway.items()}
    return gateway, {name: _drawn(random, span) for name, span in scenario.worker.items()}


def _drawn(random: Random, span: Span) -> float:
    """Draws a number of a span: a whole one, unless an end is not written as one."""
    return whole(random, span) if all(type(end) is int for end in span) else random.uniform(*span)


class Ask(NamedTuple):
    """A call to be made.

    Attributes:
        takes_back_after_s: when the caller no longer wants the answer, after the call; 0: never.
    """

    model: TimedModel
    deadline_s: float
    key: bytes | None
    priority: int
    takes_back_after_s: float


class Load:
    """Who asks what and when, drawn from a seed.

    Attributes:
        gateways: how many there are, and so workers and clients.
        rate: calls a second, of all clients.
        taken_back: of the calls drawn so far so many are taken back, unless they have ended before.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._random = source(seed, "load")
        self._scenario = scenario
        self.taken_back = 0
        self.gateways, self.workers, self.clients = (
            whole(self._random, span) for span in (scenario.gateways, scenario.workers, scenario.clients)
        )
        self.rate = self._random.uniform(*scenario.rate)

    def ask(self) -> Ask:
        """Draws a call."""
        random, scenario = self._random, self._scenario
        model = random.choice(scenario.models)
        deadline_s = random.uniform(*scenario.deadline_s)
        if random.random() < scenario.patient:
            deadline_s = PATIENCE_S
        key = b"key-%d" % random.randrange(_KEYS) if random.random() < scenario.keyed else None
        priority = random.choice((1, 4, 4, 4, 8))
        is_taken_back = random.random() < scenario.cancelled
        after_s = random.uniform(0, 0.1)
        self.taken_back += is_taken_back
        return Ask(model, deadline_s, key, priority, after_s if is_taken_back else 0.0)

    def burst(self, clients: int) -> tuple[int, int]:
        """Draws how many calls are made at once, and by which of so many clients."""
        return self._random.randint(1, self._scenario.burst), self._random.randrange(max(1, clients))

    def pause_s(self) -> float:
        """Draws when calls are made the next time."""
        return self._random.expovariate(self.rate / (1 + self._scenario.burst) * 2)
