"""What all options have in common."""

from __future__ import annotations

import click
import pytest

from zmqinfer.cli import cli

FRACTIONS = [
    (command, option)
    for command in cli.list_commands(click.Context(cli))
    for option in getattr(cli.get_command(click.Context(cli), command), "params", ())
    if isinstance(option.type, click.types.FloatParamType)
]


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_no_option_takes_what_is_no_finite_number(number: str) -> None:
    """NaN lies within all bounds, since nothing is below or above it."""
    assert {command for command, _ in FRACTIONS} >= {"up", "gateway", "worker", "infer", "bench", "status"}
    for _, option in FRACTIONS:
        with pytest.raises(click.BadParameter, match=f"{number}.* is no finite number"):
            option.type.convert(number, option, None)
