"""Scenarios from TOML."""

from __future__ import annotations

import tomllib
from importlib import resources
from random import Random

import pytest

from zmqinfer.errors import ConfigError
from zmqinfer.scenario import FAULTS, Scenario, whole
from zmqinfer.sim.faults import KINDS


def test_the_shipped_scenario_has_every_kind_of_fault() -> None:
    """Its numbers are spans."""
    text = (resources.files("zmqinfer.sim") / "scenarios" / "mixed.toml").read_text()
    scenario = Scenario.of(tomllib.loads(text))

    assert scenario.faults.keys() == KINDS.keys() == set(FAULTS)
    assert scenario.workers == (2, 16)
    assert [model.idempotent for model in scenario.models] == [True, True, False]


def test_a_number_is_a_span_of_itself() -> None:
    """Both ends are drawn."""
    assert Scenario.of({"workers": 3}).workers == (3, 3)
    assert {whole(Random(seed), (1, 3)) for seed in range(50)} == {1, 2, 3}


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ({"wrokers": 3}, "unknown key 'wrokers'"),
        ({"workers": [3, 1]}, "the least first"),
        ({"workers": "many"}, "expected a number"),
        ({"workers": True}, "expected a number"),
        ({"rate": [1, 2, 3]}, "expected a number"),
        ({"burst": "many"}, "burst is 'many', expected a whole number"),
        ({"burst": 0}, "burst is 0"),
        ({"in_flight": 1.5}, "in_flight is 1.5, expected a whole number"),
        ({"rate": 0}, "rate is 0, expected more"),
        ({"models": [{"name": "m", "noise": 1.0}]}, "expected less than 1"),
        ({"duration_s": 2, "warm_up_s": 2}, "less than duration_s, 2"),
        ({"models": []}, "expected one or more"),
        ({"models": [{"name": "m"}, {"name": "m"}]}, "a name of its own"),
        ({"models": [{"name": "m n"}]}, "does not match"),
        ({"models": [{"name": "m", "a_ms": "long"}]}, "a_ms of a model is 'long', expected a number"),
        ({"models": [{"name": "m", "a_ms": -1}]}, "a_ms of a model is -1"),
        ({"models": [{"name": "m", "policy": "eager"}]}, "policy of a model is 'eager'"),
        ({"models": [{"name": "m", "max_batch_size": 0}]}, "expected 1 or more"),
        ({"name": 5}, "name is 5, expected text"),
        ({"faults": {"fire": 1}}, "unknown faults.fire"),
        ({"faults": {"cut": -1}}, "0 or more"),
        ({"gateway": {"speed": 1}}, "unknown gateway.speed"),
        ({"models": [{"a_ms": 1}]}, "a model has no name"),
        ({"models": [{"name": "m", "speed": 1}]}, "unknown key 'speed' of a model"),
    ],
)
def test_a_mistake_is_one_sentence(document: dict[str, object], word: str) -> None:
    """That names the key and what was expected."""
    with pytest.raises(ConfigError, match=word.replace("[", r"\[")):
        Scenario.of(document)
