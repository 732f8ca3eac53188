"""Scenarios from TOML."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from random import Random

import pytest

from zmqinfer.errors import ConfigError
from zmqinfer.scenario import FAULTS, Load, Scenario, settings_of, whole
from zmqinfer.sim.faults import KINDS

MODELS = [{"name": "m"}]


def test_the_shipped_scenario_has_every_kind_of_fault() -> None:
    """Its numbers are spans."""
    text = (resources.files("zmqinfer.sim") / "scenarios" / "mixed.toml").read_text()
    scenario = Scenario.of(tomllib.loads(text))

    assert scenario.faults.keys() == KINDS.keys() == set(FAULTS)
    assert scenario.workers == (2, 16)
    assert [model.idempotent for model in scenario.models] == [True, True, False]


def test_a_number_is_a_span_of_itself() -> None:
    """Both ends are drawn."""
    assert Scenario.of({"workers": 3, "models": MODELS}).workers == (3, 3)
    assert {whole(Random(seed), (1, 3)) for seed in range(50)} == {1, 2, 3}


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ({"wrokers": 3}, "unknown key 'wrokers'"),
        ({"workers": [3, 1]}, "workers is [3, 1], expected the least first"),
        ({"workers": "many"}, "expected a whole number"),
        ({"workers": True}, "expected a whole number"),
        ({"workers": 1.5}, "workers is 1.5, expected a whole number"),
        ({"workers": 10**6}, "expected 1 to 4,096"),
        ({"gateways": 0}, "gateways is 0, expected 1 to 16"),
        ({"workers": [0, 2]}, "workers is 0, expected 1 to"),
        ({"clients": 0}, "clients is 0, expected 1 to"),
        ({}, "the [[models]] are [], expected one or more"),
        ({"models": MODELS, "rate": 5, "in_flight": 8}, "rate is 5 and in_flight is 8, expected one of both"),
        ({"rate": [1, 2, 3]}, "the least and the most"),
        ({"rate": float("inf")}, "rate is inf, expected 0.001 to 1,000,000 calls a second"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"rate": 0}, "rate is 0, expected 0.001 to"),
        ({"burst": "many"}, "burst is 'many', expected a whole number"),
        ({"burst": 0}, "burst is 0"),
        ({"in_flight": 1.5}, "in_flight is 1.5, expected a whole number"),
        ({"keyed": 1.5}, "keyed is 1.5, expected 0 to 1"),
        ({"deadline_s": [0.1, 301]}, "deadline_s is 301, expected 0.001 to 300.0 s"),
        ({"latency_ms": 0}, "latency_ms is 0, expected 0.001 to 1,000 ms"),
        ({"duration_s": float("inf")}, "duration_s is inf"),
        ({"models": MODELS, "duration_s": 2, "warm_up_s": 2}, "less than duration_s, 2"),
        ({"models": []}, "expected one or more"),
        ({"models": "m"}, "expected tables"),
        ({"models": ["m"]}, "expected tables"),
        ({"models": [{"name": "m"}, {"name": "m"}]}, "a name of its own"),
        ({"models": [{"name": "m n"}]}, "name is 'm n', expected"),
        ({"models": [{"name": ".."}]}, "name is '..', expected"),
        ({"models": [{"a_ms": 1}]}, "name is '', expected"),
        ({"models": [{"name": "m", "noise": 1.0}]}, "models.noise is 1.0, expected 0 to 0.99"),
        ({"models": [{"name": "m", "a_ms": "long"}]}, "models.a_ms is 'long', expected a number"),
        ({"models": [{"name": "m", "a_ms": -1}]}, "models.a_ms is -1"),
        ({"models": [{"name": "m", "a_ms": float("nan")}]}, "models.a_ms is nan"),
        ({"models": [{"name": "m", "policy": "eager"}]}, "models.policy is 'eager'"),
        ({"models": [{"name": "m", "max_batch_size": 0}]}, "expected 1 to 65,536"),
        ({"models": [{"name": "m", "max_batch_size": 10**9}]}, "expected 1 to 65,536"),
        ({"models": [{"name": "m", "speed": 1}]}, "unknown key 'speed' of a model"),
        ({"name": 5}, "name is 5, expected text"),
        ({"faults": {"fire": 1}}, "unknown faults.fire"),
        ({"faults": {"cut": -1}}, "faults.cut is -1, expected 0 to 1,000"),
        ({"faults": 3}, "faults is 3, expected a table"),
        ({"gateway": {"speed": 1}}, "unknown gateway.speed"),
        ({"gateway": {"max_queued": [1, 10**9]}}, "gateway.max_queued is 1000000000, expected 1 to 1,000,000"),
        ({"gateway": {"max_queued": 1.5}}, "gateway.max_queued is 1.5, expected a whole number"),
    ],
)
def test_a_mistake_is_one_sentence(document: dict[str, object], word: str) -> None:
    """That names the key and what was expected."""
    with pytest.raises(ConfigError, match=re.escape(word)):
        Scenario.of(document)


def test_a_setting_is_drawn_as_it_is_written() -> None:
    """Whole numbers, or any."""
    scenario = Scenario.of({"models": MODELS, "gateway": {"max_queued": [1, 3], "drain_grace_s": [0.1, 0.2]}})
    drawn = [settings_of(scenario, Random(seed))[0] for seed in range(50)]
    assert {one["max_queued"] for one in drawn} == {1, 2, 3}
    assert all(0.1 <= one["drain_grace_s"] <= 0.2 for one in drawn)


def test_calls_that_are_taken_back_are_counted() -> None:
    """As they are drawn, for they are in no figure."""
    load = Load(Scenario.of({"models": MODELS, "cancelled": 0.5}), 1)
    fleeting = sum(load.ask().takes_back_after_s > 0 for _ in range(1_000))
    assert load.taken_back == fleeting > 400
