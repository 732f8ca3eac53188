"""What a scenario file says: how many of each node, which models, what load, which faults.

`zmqinfer simulate` runs it in virtual time, `zmqinfer bench` on real processes; both draw the same numbers from the
same seed. Pure: text in, `Scenario` out, and randomness from a source that is passed in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, NamedTuple, TypeAlias

from zmqinfer.config import GatewaySettings, ModelSettings, Setting, Settings, WorkerSettings, setting
from zmqinfer.errors import ConfigError
from zmqinfer.records import MAX_BUDGET_US
from zmqinfer.tensor import NAME

__all__ = ["FAULTS", "Ask", "Load", "Scenario", "Span", "TimedModel", "settings_of", "source", "whole"]

# What each kind of fault does; how it is done is in sim/faults.py.
FAULTS = {
    "crash_worker": "a worker is killed; another one of its name starts at the end",
    "crash_gateway": "a gateway is killed, and starts again at the end",
    "crash_client": "a client is killed with its calls; another one starts at the end",
    "freeze_worker": "a worker is stopped, as by SIGSTOP",
    "freeze_gateway": "a gateway is stopped",
    "freeze_client": "a client is stopped, and asks nothing",
    "slow_worker": "a worker's batches take ten times as long",
    "hang_worker": "the batch that a worker runs takes so much longer",
    "faulty_worker": "a worker's models raise",
    "stall": "as `partition`, for a moment",
    "partition": "nothing arrives between two processes, neither way",
    "one_way_up": "nothing arrives at a gateway from one of its peers, but at the peer from the gateway",
    "one_way_down": "nothing arrives from a gateway at one of its peers, but at the gateway from the peer",
    "cut": "a connection ends with what is on its way, and is dialled again",
    "flap": "a connection is cut every 0.3 s",
    "drain_worker": "a worker is drained; another one of its name starts at the end, or when it has finished",
    "drain_gateway": "a gateway is drained, and starts again at the end, or when it has finished",
    "join_worker": "a worker more joins, and stays",
    "relink": "a client or worker with several gateways leaves one, and dials it again at the end",
    "overload": "a client makes 300 calls at once",
    "poison": "a client makes a call that ends each worker that runs it",
}
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

    PREFIX: ClassVar[str] = "models."

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


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario; what is a span is drawn anew for each seed.

    Attributes:
        gateway: settings of all gateways that are not the usual ones.
        worker: settings of all workers.
        faults: how many of each kind.
        lasts_s: how long faults of a kind last, where that is not as usual.
    """

    name: str = setting("scenario", "what figures and pictures call it")
    duration_s: float = setting(
        4.0, "how long calls are made and faults happen; the run lasts until everything has ended",
        unit="s", low=0.01, high=3_600,
    )  # fmt: skip
    warm_up_s: float = setting(0.0, "figures are of the calls after so long", unit="s", low=0, high=3_600)
    gateways: Span = setting((1, 3), "how many", low=1, high=16)
    workers: Span = setting((2, 8), "how many", low=1, high=4_096)
    clients: Span = setting((1, 4), "how many", low=1, high=4_000)
    rate: Span = setting(
        (20.0, 200.0), "calls of all clients, whether or not earlier ones are answered",
        unit="calls a second", low=0.001, high=1_000_000,
    )  # fmt: skip
    in_flight: int = setting(
        0, "instead of `rate`: so many calls of all clients wait for their answers at any time; 0: as `rate` says",
        unit="calls", low=0, high=100_000,
    )  # fmt: skip
    burst: int = setting(12, "most calls of one instant", unit="calls", low=1, high=10_000)
    keyed: float = setting(0.2, f"the part of the calls with a routing key, one of {_KEYS}", low=0, high=1)
    cancelled: float = setting(0.03, "the part that is taken back within 0.1 s", low=0, high=1)
    patient: float = setting(0.3, f"the part that has {PATIENCE_S:g} s instead of `deadline_s`", low=0, high=1)
    deadline_s: Span = setting(
        (0.3, 6.0), "time limits; each call draws its own", unit="s", low=0.001, high=MAX_BUDGET_US / 1e6
    )
    # Through ZeroMQ's threads and the kernel of two cores that are not busy; bench/calibration.py.
    latency_ms: Span = setting(
        (0.08, 0.15), "`simulate`: from one process's send to another's poll; each message draws its own",
        unit="ms", low=0.001, high=1_000,
    )  # fmt: skip
    promised_s: float = setting(
        0.0, "`simulate`: calls with at least this time limit have to be answered right, whatever happens; 0: none has",
        unit="s", low=0, high=300,
    )  # fmt: skip
    most_kills: int = setting(
        0, "`simulate`: so many workers may one call of the fault poison end; 0: any number",
        unit="workers", low=0, high=1_000,
    )  # fmt: skip
    models: tuple[TimedModel, ...] = ()
    gateway: Mapping[str, Span] = field(default_factory=dict)
    worker: Mapping[str, Span] = field(default_factory=dict)
    faults: Mapping[str, Span] = field(default_factory=dict)
    lasts_s: Mapping[str, Span] = field(default_factory=dict)

    @classmethod
    def describe(cls) -> Iterator[Setting]:
        """Yields the declared keys that have one value or a span, which those have whose default is one."""
        for one in dataclasses.fields(cls):
            if one.metadata:
                yield Setting(one.name, one.default, **one.metadata)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Scenario:
        """Reads a scenario from the tables of a TOML file.

        Raises:
            ConfigError: an unknown key, a value that is none, no model, or two kinds of load.
        """
        scenario = cls(**{key: _value(key, value) for key, value in document.items()})
        names = [model.name for model in scenario.models]
        if not names or len({*names}) != len(names):
            raise ConfigError(f"the [[models]] are {names}, expected one or more, each with a name of its own")
        if scenario.in_flight and "rate" in document:
            raise ConfigError(
                f"rate is {document['rate']} and in_flight is {scenario.in_flight}, expected one of both; leave out one"
            )
        if scenario.warm_up_s >= scenario.duration_s:
            raise ConfigError(
                f"warm_up_s is {scenario.warm_up_s}, expected less than duration_s, {scenario.duration_s}"
            )
        return scenario


_KNOWN = {one.name: one for one in Scenario.describe()}
_COUNT = Setting("", 0, "", "", 0, 1_000, ())
_LASTS = Setting("", 0.0, "", "s", 0, 3_600, ())
_TABLES = {
    "gateway": {one.name: one for one in GatewaySettings.describe() if one.low is not None},
    "worker": {one.name: one for one in WorkerSettings.describe() if one.low is not None},
    "faults": {kind: dataclasses.replace(_COUNT, name=kind) for kind in FAULTS},
    "lasts_s": {kind: dataclasses.replace(_LASTS, name=kind) for kind in FAULTS},
}


def _value(key: str, value: Any) -> Any:
    """Returns what a key of the file stands for."""
    if key in _KNOWN:
        one = _KNOWN[key]
        if type(one.default) is tuple:
            return _span(dataclasses.replace(one, default=one.default[0]), "", value)
        one.check(value)
        return value
    if key == "models":
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            raise ConfigError(f"models is {value!r}, expected tables: [[models]]")
        return tuple(_model(table) for table in value)
    if key in _TABLES:
        known = _TABLES[key]
        if not isinstance(value, dict):
            raise ConfigError(f"{key} is {value!r}, expected a table: [{key}]")
        for one in value:
            if one not in known:
                raise ConfigError(f"unknown {key}.{one}, expected one of: {', '.join(known)}")
        return {one: _span(known[one], f"{key}.", span) for one, span in value.items()}
    raise ConfigError(f"unknown key {key!r}, expected one of: {', '.join([*_KNOWN, 'models', *_TABLES])}")


def _span(one: Setting, where: str, value: Any) -> Span:
    ends = value if isinstance(value, list) else [value, value]
    if len(ends) != 2:
        raise ConfigError(
            f"{where}{one.name} is {value!r}, expected one value, or the least and the most, for example [1, 3]"
        )
    for end in ends:
        one.check(end, where)
    low, high = ends
    if low > high:
        raise ConfigError(f"{where}{one.name} is {value!r}, expected the least first")
    return low, high


def _model(table: Mapping[str, Any]) -> TimedModel:
    known = [one.name for one in TimedModel.describe()]
    for key in table:
        if key not in known:
            raise ConfigError(f"unknown key {key!r} of a model, expected one of: {', '.join(known)}")
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
