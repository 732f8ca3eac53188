"""What a run is made of: how many of each node, which models, what load, which faults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

from zmqinfer.config import GatewaySettings, WorkerSettings
from zmqinfer.errors import ConfigError
from zmqinfer.sim.faults import KINDS
from zmqinfer.sim.worker import SimulatedModel

__all__ = ["Scenario", "Span", "whole"]

# What the tables of a scenario may name.
_TABLES = {
    "gateway": [one.name for one in GatewaySettings.describe()],
    "worker": [one.name for one in WorkerSettings.describe()],
    "faults": list(KINDS),
    "lasts_s": list(KINDS),
}

# One number, or the least and the most of what each seed draws for itself.
Span: TypeAlias = tuple[float, float]

_MODELS = (
    SimulatedModel("short", a_ms=0.3, b_ms=0.05),
    SimulatedModel("middle", a_ms=5.0, b_ms=0.5, max_batch_size=16),
    SimulatedModel("once", a_ms=2.0, b_ms=0.2, idempotent=False),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario; what is a span is drawn anew for each seed.

    Attributes:
        duration_s: how long calls are made and faults happen; the run lasts until everything has ended.
        rate: calls a second, of all clients.
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
    gateways: Span = (1, 3)
    workers: Span = (2, 8)
    clients: Span = (1, 4)
    rate: Span = (20, 200)
    burst: int = 12
    keyed: float = 0.2
    cancelled: float = 0.03
    deadline_s: Span = (0.3, 6.0)
    promised_s: float = 0.0
    most_kills: int = 0
    patient: float = 0.3
    models: tuple[SimulatedModel, ...] = _MODELS
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
            elif isinstance(value, str) != (key == "name") or isinstance(value, bool | list | dict):
                raise ConfigError(f"scenario: {key} is {value!r}, expected {'text' if key == 'name' else 'a number'}")
            else:
                values[key] = value
        return cls(**values)


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


def _model(table: Mapping[str, Any]) -> SimulatedModel:
    known = [one.name for one in dataclasses.fields(SimulatedModel)]
    for key in table:
        if key not in known:
            raise ConfigError(f"scenario: unknown key {key!r} of a model, expected one of: {', '.join(known)}")
    if "name" not in table:
        raise ConfigError("scenario: a model has no name")
    return SimulatedModel(**table)


def whole(random: Random, span: Span) -> int:
    """Draws a whole number of a span."""
    return random.randint(int(span[0]), int(span[1]))
