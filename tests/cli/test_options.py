"""What all options have in common."""

from __future__ import annotations

import errno
import os

import click
import pytest

from zmqinfer.cli import cli, main

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


def test_what_is_exhausted_is_not_called_unwritable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of descriptors there may be none anywhere, and the sentence is about no file."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("zmqinfer.cli.raise_limit", lambda: None)
    monkeypatch.setattr(cli, "main", fail)

    with pytest.raises(SystemExit) as ended:
        main([])

    assert ended.value.code == 2
    assert capsys.readouterr().err == "zmqinfer: cannot go on (Too many open files); raise the limit with: ulimit -n\n"
