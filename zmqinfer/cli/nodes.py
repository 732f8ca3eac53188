"""`zmqinfer gateway` and `zmqinfer worker`: one node in the foreground."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    tell,
    workers_option,
)
from zmqinfer.config import DEFAULT_CLIENTS, DEFAULT_WORKERS, GatewaySettings, ModelSettings, WorkerSettings
from zmqinfer.errors import ConfigError
from zmqinfer.launch.pulse import Pulse
from zmqinfer.node.addresses import addresses_of
from zmqinfer.node.report import start_logging

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
    help="A folder of model folders, instead of the shipped models; may be repeated.",
)
@click.option(
    "--function", default=None, metavar="MODULE:CALLABLE", help="A function or class to serve instead of models."
)
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
    log_level: str,
    **values: Any,
) -> None:
    """Run one worker in the foreground until it is drained by SIGTERM, Ctrl-C or `zmqinfer drain`."""
    settings = bound(WorkerSettings, values)
    check_name("--name", name)
    check_source(function, repositories, "--function")
    own = bound(ModelSettings, {name: values[name] for name in FUNCTION_SETTINGS})
    start_logging(log_level)
    from zmqinfer.node.memory import keep_freed_memory
    from zmqinfer.node.models import find_models, load_function, load_model
    from zmqinfer.node.worker import WorkerNode
    from zmqinfer.zoo import ZOO

    keep_freed_memory()
    if function is not None:
        models = [load_function(function, own)]
    else:
        models = [load_model(config) for config in find_models(repositories or [ZOO])]
    node = WorkerNode(name or f"{socket.gethostname().partition('.')[0]}-{os.getpid()}", models, gateway, settings)
    _on_signals(node.drain, node.stop, is_alone=pulse is None)
    if pulse is not None:
        pulse.start(node.drain)
        node.on_welcome = pulse.begin
    if log_level in {"debug", "info"}:
        tell(f"worker {node.machine.name}: serving {', '.join(m.name for m in models)}; dialling {', '.join(gateway)}")
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


def _on_signals(first: Callable[[], None], second: Callable[[], None], *, is_alone: bool) -> None:
    """Calls `first` at the first SIGTERM or Ctrl-C, or when the terminal goes, and `second` at the next signal."""
    asked = False

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal asked
        (second if asked else first)()
        asked = True

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    if not is_alone:
        # It has another meaning for the process that started this one, and comes to all whose names are alike.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Of one terminal that goes there may come several.
        signal.signal(signal.SIGHUP, lambda *_: first())
