"""What all options have in common."""

from __future__ import annotations

import errno
import os
import re
import shlex

import click
import pytest

from tests.processes import here
from zmqinfer.cli import cli, main
from zmqinfer.config import GatewaySettings, WorkerSettings

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


def option_of(command: str, name: str) -> click.Option:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    (option,) = [one for one in found.params if one.name == name]
    assert isinstance(option, click.Option)
    return option


@pytest.mark.parametrize("command", ["gateway", "worker"])
def test_up_has_the_options_of_what_it_starts(command: str) -> None:
    """Under their own names, with their defaults and words: what is said of one can be done with the other."""
    group = {"gateway": GatewaySettings, "worker": WorkerSettings}[command]
    for one in group.describe():
        own, ups = option_of(command, one.name), option_of("up", one.name)
        assert (ups.opts, ups.default, ups.help, ups.type) == (own.opts, own.default, own.help, own.type)


def test_settings_of_gateways_and_workers_that_share_a_name_are_declared_alike() -> None:
    """One option of `up` stands for both."""
    gateway = {one.name: one for one in GatewaySettings.describe()}
    both = [(one, gateway[one.name]) for one in WorkerSettings.describe() if one.name in gateway]

    assert [one.name for one, _ in both] == ["heartbeat_ms", "drain_grace_s"]
    assert all(one == other for one, other in both)


@pytest.mark.parametrize("command", ["up", "worker"])
def test_help_has_a_section_for_each_group_of_settings(command: str) -> None:
    """Each option once, and those that are no settings first."""
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    with click.Context(found, info_name=command) as context:
        text = found.get_help(context)

    assert text.index("\nOptions:") < text.index("\nSettings of ")
    for option in [param for param in found.params if isinstance(param, click.Option) and not param.hidden]:
        assert len(re.findall(rf"^  (?:-\w, )?{option.opts[-1]}\b(?!-)", text, re.MULTILINE)) == 1, option.opts


@pytest.mark.parametrize("name", cli.list_commands(click.Context(cli)))
def test_help_has_the_same_parts_in_the_same_order(name: str) -> None:
    """Usage, a sentence, what else there is to know, options, each with a sentence, and examples that are right."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    text = command.get_help(click.Context(command, info_name=name))

    lines = text.splitlines()
    assert lines[0].startswith(f"Usage: {name}")
    assert [line for line in lines if line.endswith(":") and line.strip() in {"Options:", "Examples:"}] == [
        "Options:",
        "  Examples:",
    ]
    assert lines[-1].startswith("    ")
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            sentence = (option.help or "").partition("  [")[0]
            assert sentence[:1].isupper(), option
            assert sentence.endswith("."), option
    for example in lines[lines.index("  Examples:") + 1 :]:
        words = shlex.split(example.rpartition("|")[2])
        assert words[:2] == ["zmqinfer", name]
        command.make_context(name, words[2:])


@pytest.mark.parametrize(
    ("command", "variable", "value"),
    [
        ("gateway", "ZMQINFER_GATEWAY_MAX_QUEUED", "many"),
        ("gateway", "ZMQINFER_GATEWAY_MAX_QUEUED", "0"),
        ("status", "ZMQINFER_STATUS_GATEWAY", "nowhere"),
        ("worker --gateway tcp://127.0.0.1:1", "ZMQINFER_WORKER_MODELS", "/no/such/folder"),
        ("simulate mixed", "ZMQINFER_SIMULATE_FAULTS", "x"),
    ],
)
def test_an_error_names_the_variable_that_a_value_came_from(command: str, variable: str, value: str) -> None:
    """Nobody sees it in the command; and one that the command overrules is not named."""
    done = here(*command.split(), environment={variable: value})

    option = "--" + variable.split("_", 2)[2].lower().replace("_", "-")
    assert done.returncode == 2
    assert f"({option} is from {variable})" in done.stderr
    overruled = here(*command.split(), option, value, environment={variable: value})
    assert variable not in overruled.stderr
    assert overruled.returncode == 2
