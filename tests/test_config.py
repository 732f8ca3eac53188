"""Settings check themselves."""

from __future__ import annotations

import dataclasses
import math

import pytest

from zmqinfer.config import (
    ClientSettings,
    GatewaySettings,
    ModelSettings,
    Setting,
    Settings,
    WorkerSettings,
    setting,
)
from zmqinfer.errors import ConfigError

GROUPS: list[type[Settings]] = [GatewaySettings, WorkerSettings, ClientSettings, ModelSettings]
ALL = [pytest.param(group, one, id=f"{group.__name__}.{one.name}") for group in GROUPS for one in group.describe()]
NUMBERS = [param for param in ALL if type(param.values[1].default) in (int, float)]


@pytest.mark.parametrize(("group", "one"), ALL)
def test_a_setting_is_whole(group: type[Settings], one: Setting) -> None:
    """It has a meaning, a default that it allows itself, and, if a number, both bounds."""
    assert one.meaning
    one.check(one.default)
    if type(one.default) in (int, float):
        assert one.low is not None
        assert one.high is not None


@pytest.mark.parametrize(("group", "one"), NUMBERS)
def test_bounds_are_allowed_and_beyond_them_nothing(group: type[Settings], one: Setting) -> None:
    """Low and high themselves are fine; the next values out are refused by name."""
    assert one.low is not None
    assert one.high is not None
    kind = type(one.default)
    step = 1 if kind is int else 0.001

    needed = {"isolation": "process"} if one.name == "memory_mb" else {}
    for value in (one.low, one.high):
        assert getattr(group(**{one.name: kind(value), **needed}), one.name) == value
    for value in (one.low - step, one.high + step):
        with pytest.raises(ConfigError, match=rf"^{one.name} is {value}, expected .* to "):
            group(**{one.name: kind(value)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_batch_size": "32"}, "max_batch_size is '32', expected a whole number"),
        ({"max_batch_size": True}, "max_batch_size is True, expected a whole number"),
        ({"max_batch_size": 32.0}, "max_batch_size is 32.0, expected a whole number"),
        ({"max_batch_size": 0}, "max_batch_size is 0, expected 1 to 65,536 rows"),
        ({"max_wait_ms": math.nan}, "max_wait_ms is nan, expected 0 to 60,000 ms"),
        ({"max_wait_ms": None}, "max_wait_ms is None, expected a number"),
        ({"policy": "eager"}, "policy is 'eager', expected one of: adaptive, timed"),
        ({"idempotent": 1}, "idempotent is 1, expected true or false"),
        ({"target": 3}, "target is 3, expected text in quotes"),
        ({"memory_mb": 64}, "memory_mb is 64, which needs isolation = 'process'; add it, or drop memory_mb"),
    ],
)
def test_a_wrong_value_is_one_sentence(settings: dict[str, object], message: str) -> None:
    """The sentence has the name, the value and what was expected, in digits that people read."""
    with pytest.raises(ConfigError) as caught:
        ModelSettings(**settings)  # type: ignore[arg-type]

    assert str(caught.value) == message


def test_a_whole_number_is_a_number() -> None:
    """`max_wait_ms = 5` needs no point."""
    assert ModelSettings(max_wait_ms=5).max_wait_ms == 5


def test_a_group_may_say_where_its_values_were_written() -> None:
    """PREFIX stands before the name."""

    @dataclasses.dataclass(frozen=True)
    class Local(Settings):
        PREFIX = "in local.toml: "
        size: int = setting(1, "a size", low=1, high=2)

    with pytest.raises(ConfigError, match=r"^in local\.toml: size is 3, expected 1 to 2$"):
        Local(size=3)


def test_settings_do_not_change() -> None:
    """A running node may rely on them."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        GatewaySettings().max_requests = 1  # type: ignore[misc]


def test_settings_may_be_given_as_they_are_as_a_dict_or_not_at_all() -> None:
    """What an interface takes where it has settings."""
    own = ModelSettings(max_batch_size=4)

    assert ModelSettings.of(own, "settings") is own
    assert ModelSettings.of({"max_batch_size": 4}, "settings") == own
    assert ModelSettings.of(None, "settings") == ModelSettings()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"max_batchsize": 4}, "settings: key 'max_batchsize' is unknown, expected one of: backend, .*; did you mean"),
        ({"max_batch_size": 0}, "settings: max_batch_size is 0, expected 1 to 65,536 rows"),
        ({4: 4}, "settings: key 4 is unknown, expected one of: backend, .*; remove it"),
        (GatewaySettings(), "settings is a GatewaySettings, expected a ModelSettings or a dict with some of its names"),
        ([("policy", "timed")], "settings is a list, expected a ModelSettings or a dict with some of its names"),
    ],
)
def test_what_are_no_settings_is_one_sentence(given: object, sentence: str) -> None:
    """It says which argument, and what that takes."""
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        ModelSettings.of(given, "settings")  # type: ignore[arg-type]
