"""`zmqinfer gateway` and `zmqinfer worker`: one node in the foreground."""

from __future__ import annotations

import functools
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zmqinfer.cli import EXIT_FAILED
from zmqinfer.cli.options import (
    FUNCTION_SETTINGS,
    Sectioned,
    bound,
    check_name,
    check_source,
    log_option,
    refuse_beyond_loopback,
    setting_options,
    strict_option,
    tell,
    workers_option,
)
from zmqinfer.config import DEFAULT_CLIENTS, DEFAULT_WORKERS, GatewaySettings, ModelSettings, WorkerSettings
from zmqinfer.errors import ConfigError
from zmqinfer.launch.pulse import Pulse
from zmqinfer.node.addresses import addresses_of
from zmqinfer.node.report import Report, start_logging

if TYPE_CHECKING:
    from zmqinfer.node.crew import EngineThread

__all__ = ["gateway", "worker"]


@click.command()
@click.option("--clients", default=DEFAULT_CLIENTS, show_default=True, help="Where clients dial.")
@click.option("--workers", default=DEFAULT_WORKERS, show_default=True, help="Where workers dial.")
@setting_options(GatewaySettings)
@log_option
@click.pass_obj
def gateway(pulse: Pulse | None, /, clients: str, workers: str, log_level: str, **values: Any) -> None:
    """Run one gateway in the foreground until it is drained by SIGTERM or Ctrl-C."""
    from zmqinfer.node.gateway import GatewayNode
    from zmqinfer.node.memory import keep_freed_memory

    keep_freed_memory()
    addresses_of([clients, workers])
    refuse_beyond_loopback(clients, workers)
    settings = bound(GatewaySettings, values)
    start_logging(log_level)
    node = GatewayNode(clients, workers, settings)
    _on_signals(node.drain, node.stop, is_alone=pulse is None)
    if pulse is not None:
        pulse.start(node.drain)
        pulse.begin()
    node.run()
    if node.machine.ledger.pending:
        text = f"the time of grace is over, {node.machine.ledger.pending} requests go back to their clients"
        tell(f"zmqinfer: {text}", err=True)
        raise click.exceptions.Exit(EXIT_FAILED)


@click.command(cls=Sectioned)
@click.option("--name", default=None, help="What the ring knows it by.  [default: host-pid]")
@workers_option
@click.option(
    "--models",
    "repositories",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder of model folders; may be repeated.",
)
@click.option(
    "--function", default=None, metavar="MODULE:CALLABLE", help="A function or class to serve instead of models."
)
@strict_option
@click.option("--demo", is_flag=True, help="Serve the shipped models: digits, echo and sleep.")
@setting_options(ModelSettings, *FUNCTION_SETTINGS, section="Settings of --function")
@setting_options(WorkerSettings)
@log_option
@click.pass_obj
def worker(
    pulse: Pulse | None,
    /,
    name: str | None,
    gateway: list[str],
    repositories: tuple[Path, ...],
    function: str | None,
    demo: bool,
    strict: bool,
    log_level: str,
    **values: Any,
) -> None:
    """Run one worker in the foreground until it is drained by SIGTERM, Ctrl-C or `zmqinfer drain`.

    What it serves is given as --models, --function or --demo.
    """
    settings = bound(WorkerSettings, values)
    check_name("--name", name)
    check_source("--function", function, repositories)
    _check_demo(demo, is_other=function is not None or bool(repositories))
    own = bound(ModelSettings, {name: values[name] for name in FUNCTION_SETTINGS})
    start_logging(log_level)
    from zmqinfer.node.memory import keep_freed_memory
    from zmqinfer.node.models import load_model, target_config
    from zmqinfer.node.worker import WorkerNode
    from zmqinfer.zoo import ZOO

    keep_freed_memory()
    name = name or f"{socket.gethostname().partition('.')[0]}-{os.getpid()}"
    mistakes: list[ConfigError] = []
    if function is not None:
        models = [load_model(target_config(function, own))]
    else:
        models = _load([ZOO] if demo else repositories, None if strict else mistakes.append)
    if not models:
        raise ConfigError("; ".join(map(str, mistakes)))
    node = WorkerNode(name, models, gateway, settings)
    _on_signals(node.drain, node.stop, is_alone=pulse is None)
    for mistake in mistakes:
        Report("worker", worker=name).error("model not served; mend it and start this worker again", why=mistake)
    if pulse is not None:
        pulse.start(node.drain)
        node.on_welcome = functools.partial(pulse.begin, is_whole=not mistakes)
    node.run()
    machine = node.machine
    if machine.ended_by and not machine.was_welcome:
        raise ConfigError(f"this worker ends: {machine.ended_by}")
    if machine.ended_by:
        tell(f"zmqinfer: this worker ends: {machine.ended_by}", err=True)
        raise click.exceptions.Exit(EXIT_FAILED)
    if machine.held:
        tell(f"zmqinfer: the time of grace is over, {machine.held} requests go back to the gateway", err=True)
        raise click.exceptions.Exit(EXIT_FAILED)
    # Who started this one was told, and takes what does not end with 0 for dead.
    if mistakes and pulse is None:
        tell(f"zmqinfer: drained; {len(mistakes)} models were not served, see the errors above", err=True)
        raise click.exceptions.Exit(EXIT_FAILED)


def _check_demo(is_demo: bool, *, is_other: bool) -> None:
    """Raises `ConfigError` unless either the shipped models or something else is to be served."""
    if is_demo is is_other:
        raise ConfigError(
            f"{'--demo and something else' if is_demo else 'nothing'} was given to serve, expected one of --models DIR,"
            " --function MODULE:CALLABLE, and --demo for the shipped models; say which"
        )


def _load(folders: Sequence[Path], on_mistake: Callable[[ConfigError], None] | None) -> list[EngineThread]:
    """Loads the models in these folders; `on_mistake` is told of those that cannot be, if None that is raised."""
    from zmqinfer.node.models import find_models, load_model

    models = []
    for config in find_models(folders, on_mistake):
        try:
            models.append(load_model(config))
        except ConfigError as mistake:
            if on_mistake is None:
                raise
            on_mistake(mistake)
    return models


def _on_signals(first: Callable[[], None], second: Callable[[], None], *, is_alone: bool) -> None:
    """Calls `first` at the first SIGTERM or Ctrl-C, or when the terminal goes, and `second` at the next signal."""
    asked = False

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal asked
        (second if asked else first)()
        asked = True

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Of one terminal that goes there may come several. To the process that started this one it means another thing,
        # and it may come to all whose names are alike; what a model starts shall not ignore it, as if it were ignored.
        signal.signal(signal.SIGHUP, lambda *_: first() if is_alone else None)
