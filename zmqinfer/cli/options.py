"""Options derived from the declared settings, and the addresses that all commands share."""

from __future__ import annotations

import ipaddress
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from zmqinfer.config import DEFAULT_CLIENTS, DEFAULT_WORKERS, ModelSettings, Settings
from zmqinfer.errors import ConfigError
from zmqinfer.node.addresses import addresses_of

__all__ = [
    "FUNCTION_SETTINGS",
    "Finite",
    "Sectioned",
    "Within",
    "bound",
    "check_name",
    "check_source",
    "clients_option",
    "given",
    "log_option",
    "refuse_beyond_loopback",
    "setting_options",
    "strict_option",
    "tell",
    "workers_option",
]

S = TypeVar("S", bound=Settings)
Command = TypeVar("Command", bound=Callable[..., Any])


class Finite(click.types.FloatParamType):
    """A number, but neither nan, which no bound keeps out, nor an infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the number, or says in a sentence what came instead."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number, expected one.", param, ctx)
        return number


class Within(click.FloatRange, Finite):
    """A number from the lower to the upper bound. What every option with a fraction has."""


# Of a model's settings those that one without a model.toml can have; `--max-batch-size` is the worker's.
FUNCTION_SETTINGS = tuple(
    one.name for one in ModelSettings.describe() if one.name not in {"backend", "target", "max_batch_size"}
)
# How an option reads a setting of this type; the settings have the bounds.
_TYPES = {int: click.INT, float: Finite(), str: click.STRING, bool: click.BOOL}


class _SettingOption(click.Option):
    """An option for a declared setting, listed in a section of the help."""

    def __init__(self, *names: Any, section: str, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.section = section


class Sectioned(click.Command):
    """A command whose help has a section for each group of settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the options that are no settings first."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def setting_options(settings: type[Settings], *names: str, section: str = "Options") -> Callable[[Command], Command]:
    """Adds an option for each declared setting, or for those named, in a section of the help."""

    def add(command: Command) -> Command:
        for one in reversed(list(settings.describe())):
            if names and one.name not in names:
                continue
            meaning = one.meaning[0].upper() + one.meaning[1:]
            unit = f" [{one.unit}]" if one.unit else ""
            command = click.option(
                _spelled(one.name),
                one.name,
                cls=_SettingOption,
                section=section,
                type=click.Choice(one.choices) if one.choices else _TYPES[type(one.default)],
                default=one.default,
                show_default=True,
                show_envvar=False,
                help=f"{meaning}{unit}.",
            )(command)
        return command

    return add


def given(settings: type[Settings], *names: str) -> list[str]:
    """Returns the options of declared settings, or of those named, that the running command was given, as arguments."""
    context = click.get_current_context()
    found = [
        one.name
        for one in settings.describe()
        if (not names or one.name in names)
        and context.get_parameter_source(one.name) not in {None, ParameterSource.DEFAULT}
    ]
    return [part for name in found for part in (_spelled(name), str(context.params[name]))]


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def bound(settings: type[S], values: dict[str, Any]) -> S:
    """Makes the settings out of a command's values; `ConfigError` names the option that is out of bounds."""
    names = {one.name for one in settings.describe()}
    try:
        return settings(**{name: value for name, value in values.items() if name in names})
    except ConfigError as error:
        name, _, rest = str(error).partition(" ")
        raise ConfigError(f"{_spelled(name)} {rest}") from error


def _gateway_option(default: str, whom: str) -> Callable[[Command], Command]:
    return click.option(
        "--gateway",
        "-g",
        "gateway",
        multiple=True,
        default=(default,),
        show_default=True,
        callback=lambda _ctx, _param, value: addresses_of(value),
        help=f"The gateway's address for {whom}; several with commas or by repetition.",
    )


def check_source(name: str, function: str | None, folders: Sequence[Path]) -> None:
    """Raises `ConfigError` for what of a function, which is given as `name`, and folders does not go together."""
    if function is not None and folders:
        raise ConfigError(f"both {name} and --models were given, expected one; drop the other")
    options = given(ModelSettings, *FUNCTION_SETTINGS)
    if function is None and options:
        raise ConfigError(
            f"{options[0]} was given without {name}, which it is for; models in folders have it in their model.toml"
        )


def check_name(option: str, name: str | None) -> None:
    """Raises `ConfigError` for what no worker can be called."""
    # Not above: it loads NumPy, which most commands need late or never.
    from zmqinfer.tensor import NAME

    if name is not None and not NAME.fullmatch(name):
        raise ConfigError(f"{option} is {name!r}, expected 1 to 128 of the characters A-Z a-z 0-9 . _ : -")


def clients_option(command: Command) -> Command:
    """Adds `--gateway` for commands that are clients."""
    return _gateway_option(DEFAULT_CLIENTS, "clients")(command)


def workers_option(command: Command) -> Command:
    """Adds `--gateway` for workers."""
    return _gateway_option(DEFAULT_WORKERS, "workers")(command)


def log_option(command: Command) -> Command:
    """Adds `--log-level`."""
    return click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="What to log on standard error.",
    )(command)


def strict_option(command: Command) -> Command:
    """Adds `--strict`."""
    return click.option(
        "--strict",
        is_flag=True,
        help="Refuse to start when one model of --models cannot be served, instead of serving the others.",
    )(command)


def tell(text: str, *, err: bool = False) -> None:
    """Says something for people: a full disk or a reader that has gone shall not decide whether a node lives."""
    try:
        click.echo(text, err=err)
    except OSError:
        if not err:
            # Else the interpreter tries again what is left of it at its end, and exits with a code of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse_beyond_loopback(*addresses: str) -> None:
    """Raises `ConfigError` for an address that others could reach: there are no keys yet to keep them out."""
    for address in addresses:
        scheme, _, rest = address.partition("://")
        if scheme == "ipc":
            continue
        host = rest.rpartition(":")[0].strip("[]")
        try:
            is_own = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            is_own = False
        if not is_own:
            raise ConfigError(
                f"{address} is reachable from other machines, and this version has no keys to tell friends from"
                " strangers; bind 127.0.0.1 and reach it through a tunnel"
            )
