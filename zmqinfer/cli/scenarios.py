"""What `zmqinfer bench` and `zmqinfer simulate` share: reading a scenario, writing what came of one."""

from __future__ import annotations

import os
import sys
import tomllib
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zmqinfer.errors import ConfigError

if TYPE_CHECKING:
    from zmqinfer.load.results import BenchResult, Configuration, LoadResult
    from zmqinfer.scenario import Load, Scenario

__all__ = ["check_out", "read_scenario", "result_of", "say_taken_back", "write"]


def read_scenario(name: str) -> Scenario:
    """Returns the scenario of a TOML file, or one that is shipped.

    Raises:
        ConfigError: there is none, or it has a mistake; the file is named.
    """
    from zmqinfer.scenario import Scenario

    path = Path(name)
    shipped = resources.files("zmqinfer.sim") / "scenarios"
    try:
        text = (path if path.suffix or path.exists() else shipped / f"{name}.toml").read_text("utf-8-sig")
        return Scenario.of(tomllib.loads(text))
    except OSError as cause:
        names = ", ".join(sorted(one.name.removesuffix(".toml") for one in shipped.iterdir()))
        raise ConfigError(f"no scenario {name!r} ({cause.strerror}); give a TOML file, or: {names}") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{name} is no TOML: {cause}") from cause
    except ConfigError as cause:
        raise ConfigError(f"{name}: {cause}") from cause


def check_out(out: Path) -> None:
    """Raises `ConfigError` if results cannot be written there; to be asked before the work is done."""
    present = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not present.is_dir() or not os.access(present, os.W_OK):
        raise ConfigError(f"--out {out} cannot be made: {present} is no folder that can be written to; choose another")


def result_of(found: tuple[LoadResult, ...], configuration: Configuration, started_at: datetime) -> BenchResult:
    """Returns the results of a scenario with what they were made by."""
    from zmqinfer.load.results import BenchResult, Machine, Versions

    when = started_at.astimezone(UTC).isoformat(timespec="seconds")
    command = " ".join(["zmqinfer", *sys.argv[1:]])
    return BenchResult(found, (), Machine.here(), Versions.installed(), configuration, when, command)


def say_taken_back(load: Load) -> None:
    """Says how many calls are in no figure, if any are."""
    if load.taken_back:
        click.echo(f"{load.taken_back:,} calls were drawn to be taken back: they are in no figure")


def write(result: BenchResult, out: Path) -> None:
    """Writes results, report and pictures, and says the headline."""
    from zmqinfer.load import plots
    from zmqinfer.load import report as text
    from zmqinfer.load.stored import write_results

    write_results(result, out)
    text.write_report(result, out)
    plots.write_pictures(result, out)
    click.echo(text.headline(result))
    click.echo(f"see {out / 'performance_report.txt'} and the pictures beside it")
