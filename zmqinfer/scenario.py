"""What a scenario file says: how many of each node, which models, what load, which faults.

`zmqinfer simulate` runs it in virtual time, `zmqinfer bench` on real processes; both draw the same numbers from the
same seed. Pure: text in, `Scenario` out, and randomness from a source that is passed in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, TypeAlias

from zmqinfer.config import GatewaySettings, ModelSettings, WorkerSettings
from zmqinfer.errors import ConfigError
from zmqinfer.tensor import NAME

__all__ = ["FAULTS", "Ask", "Load", "Scenario", "Span", "TimedModel", "settings_of", "source", "whole"]

FAULTS = (
    "crash_worker", "crash_gateway", "crash_client", "freeze_worker", "freeze_gateway", "freeze_client", "slow_worker",
    "hang_worker", "faulty_worker", "stall", "partition", "one_way_up", "one_way_down", "cut", "flap", "drain_worker",
    "drain_gateway", "join_worker", "overload", "poison", "clock_jump",
)  # fmt: skip
# What the tables of a scenario may name.
_TABLES = {
    "gateway": [one.name for one in GatewaySettings.describe()],
    "worker": [one.name for one in WorkerSettings.describe()],
    "faults": list(FAULTS),
    "lasts_s": list(FAULTS),
}
_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_POLICIES = next(one.choices for one in ModelSettings.describe() if one.name == "policy")
_KEYS = 16
# The time limit of patient calls.
PATIENCE_S = 30.0

# One number, or the least and the most of what each seed draws for itself.
Span: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class TimedModel:
    """A model that takes `a_ms + b_ms * rows` for a batch, and `stall_ms` more for one of `stall_every` batches.

    Times vary by the part `noise` to either side.
    """

    name: str
    a_ms: float = 1.0
    b_ms: float = 0.1
    max_batch_size: int = 32
    max_wait_ms: float = 20.0
    policy: str = "adaptive"
    idempotent: bool = True
    hedge: bool = False
    noise: float = 0.1
    stall_every: int = 0
    stall_ms: float = 0.0


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
        known = {one.name: one for one in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for key, value in document.items():
            if key not in known:
                raise ConfigError(f"scenario: unknown key {key!r}, expected one of: {', '.join(known)}")
            if key == "models":
                values[key] = tuple(_model(table) for table in value)
            elif key in _TABLES:
                values[key] = _spans(key, value)
            elif isinstance(known[key].default, tuple):
                values[key] = _span(key, value)
            elif type(value) is not (kind := type(known[key].default)) and (kind, type(value)) != (float, int):
                raise ConfigError(f"scenario: {key} is {value!r}, expected {_KINDS[kind]}")
            else:
                values[key] = value
        scenario = cls(**values)
        names = [model.name for model in scenario.models]
        if not names or len({*names}) != len(names):
            raise ConfigError(f"scenario: the models are {names}, expected one or more, each with a name of its own")
        if not 0 <= scenario.warm_up_s < scenario.duration_s:
            raise ConfigError(
                f"scenario: warm_up_s is {scenario.warm_up_s}, expected less than duration_s, {scenario.duration_s}"
            )
        if scenario.burst < 1 or scenario.in_flight < 0:
            raise ConfigError(
                f"scenario: burst is {scenario.burst} and in_flight {scenario.in_flight}, expected 1 and 0 or more"
            )
        if scenario.rate[0] <= 0:
            raise ConfigError("scenario: rate is 0, expected more; `in_flight` makes a closed loop")
        return scenario


def _spans(key: str, table: Mapping[str, Any]) -> dict[str, Span]:
    for name in table:
        if name not in _TABLES[key]:
            raise ConfigError(f"scenario: unknown {key}.{name}, expected one of: {', '.join(_TABLES[key])}")
    return {name: _span(f"{key}.{name}", span) for name, span in table.items()}


def _span(key: str, value: object) -> Span:
    pair = value if isinstance(value, list) else [value, value]
    numbers = [float(one) for one in pair if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(pair) != 2 or len(numbers) != 2:
        raise ConfigError(f"scenario: {key} is {value!r}, expected a number, or the least and the most: [1, 3]")
    low, high = numbers
    if not 0 <= low <= high:
        raise ConfigError(f"scenario: {key} is {value!r}, expected 0 or more, the least first")
    return low, high


def _model(table: Mapping[str, Any]) -> TimedModel:
    known = {one.name: one for one in dataclasses.fields(TimedModel)}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(f"scenario: unknown key {key!r} of a model, expected one of: {', '.join(known)}")
        kind = str if key == "name" else type(known[key].default)
        is_fit = type(value) is kind or (kind is float and type(value) is int)
        if not is_fit or (isinstance(value, int | float) and value < 0):
            raise ConfigError(f"scenario: {key} of a model is {value!r}, expected {_KINDS[kind]}")
    if "name" not in table:
        raise ConfigError("scenario: a model has no name")
    model = TimedModel(**table)
    if not NAME.fullmatch(model.name):
        raise ConfigError(f"scenario: model name {model.name!r} does not match {NAME.pattern}")
    if model.policy not in _POLICIES:
        raise ConfigError(f"scenario: policy of a model is {model.policy!r}, expected one of: {', '.join(_POLICIES)}")
    if model.noise >= 1:
        raise ConfigError(f"scenario: noise of a model is {model.noise}, expected less than 1")
    if model.max_batch_size < 1:
        raise ConfigError("scenario: max_batch_size of a model is 0, expected 1 or more")
    return model


def whole(random: Random, span: Span) -> int:
    """Draws a whole number of a span."""
    return random.randint(int(span[0]), int(span[1]))


def source(seed: int, purpose: str) -> Random:
    """Returns what one purpose draws from: of its own, so that a fault less leaves the load as it was."""
    return Random(f"{seed} {purpose}")  # noqa: S311 - a scenario is to be repeatable


def settings_of(scenario: Scenario, random: Random) -> tuple[dict[str, int], dict[str, int]]:
    """Draws the settings of gateways and of workers, as far as the scenario names them."""
    gateway = {name: whole(random, span) for name, span in scenario.gateway.items()}
    return gateway, {name: whole(random, span) for name, span in scenario.worker.items()}


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
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._random = source(seed, "load")
        self._scenario = scenario
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
        return Ask(model, deadline_s, key, priority, after_s if is_taken_back else 0.0)

    def burst(self, clients: int) -> tuple[int, int]:
        """Draws how many calls are made at once, and by which of so many clients."""
        return self._random.randint(1, self._scenario.burst), self._random.randrange(max(1, clients))

    def pause_s(self) -> float:
        """Draws when calls are made the next time."""
        return self._random.expovariate(self.rate / (1 + self._scenario.burst) * 2)
