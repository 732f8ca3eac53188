"""`zmqinfer gateway` and `zmqinfer worker`: one node in the foreground."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zmqinfer.cli import EXIT_FAILED, EXIT_USAGE
from zmqinfer.cli.options import (
    bound,
    check_name,
    check_source,
    log_option,
    refuse_beyond_loopback,
    setting_options,
    tell,
    workers_option,
)
from zmqinfer.config import DEFAULT_CLIENTS, DEFAULT_WORKERS, GatewaySettings, WorkerSettings
from zmqinfer.node.addresses import addresses_of
from zmqinfer.node.report import start_logging

if TYPE_CHECKING:
    from zmqinfer.launch.pulse import Pulse

__all__ = ["gateway", "worker"]

# For those that `up` starts.
_pulse_option = click.option("--pulse-fd", type=int, default=None, hidden=True)


@click.command()
@click.option("--clients", default=DEFAULT_CLIENTS, show_default=True, help="Where clients dial.")
@click.option("--workers", default=DEFAULT_WORKERS, show_default=True, help="Where workers dial.")
@setting_options(GatewaySettings)
@log_option
@_pulse_option
def gateway(clients: str, workers: str, log_level: str, pulse_fd: int | None, **values: Any) -> None:
    """Run one gateway in the foreground until it is drained by SIGTERM or Ctrl-C."""
    from zmqinfer.node.gateway import GatewayNode
    from zmqinfer.node.memory import keep_freed_memory

    keep_freed_memory()
    addresses_of([clients, workers])
    refuse_beyond_loopback(clients, workers)
    settings = bound(GatewaySettings, values)
    start_logging(log_level)
    node = GatewayNode(clients, workers, settings)
    _on_signals(node.drain, node.stop)
    pulse = _pulse(pulse_fd, node.drain)
    if pulse is not None:
        pulse.begin()
    node.run()
    if node.machine.ledger.pending:
        text = f"the time of grace is over, {node.machine.ledger.pending} requests go back to their clients"
        tell(f"zmqinfer: {text}", err=True)
        raise click.exceptions.Exit(EXIT_FAILED)


@click.command()
@click.option("--name", default=None, help="What the ring knows it by.  [default: host-pid]")
@workers_option
@click.option(
    "--models",
    "repositories",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder of model folders, instead of the shipped models; may be repeated.",
)
@click.option("--function", default=None, metavar="MODULE:CALLABLE", help="A function to serve instead of models.")
@setting_options(WorkerSettings)
@log_option
@_pulse_option
def worker(
    name: str | None,
    gateway: list[str],
    repositories: tuple[Path, ...],
    function: str | None,
    log_level: str,
    pulse_fd: int | None,
    **values: Any,
) -> None:
    """Run one worker in the foreground until it is drained by SIGTERM, Ctrl-C or `zmqinfer drain`."""
    settings = bound(WorkerSettings, values)
    check_name("--name", name)
    check_source(function, repositories, "--function")
    start_logging(log_level)
    from zmqinfer.node.memory import keep_freed_memory
    from zmqinfer.node.models import find_models, load_function, load_model
    from zmqinfer.node.worker import WorkerNode
    from zmqinfer.zoo import ZOO

    keep_freed_memory()
    if function is not None:
        models = [load_function(function)]
    else:
        models = [load_model(config) for config in find_models(repositories or [ZOO])]
    node = WorkerNode(name or f"{socket.gethostname().partition('.')[0]}-{os.getpid()}", models, gateway, settings)
    _on_signals(node.drain, node.stop)
    pulse = _pulse(pulse_fd, node.drain)
    if pulse is not None:
        node.on_welcome = pulse.begin
    if log_level in {"debug", "info"}:
        tell(f"worker {node.machine.name}: serving {', '.join(m.name for m in models)}; dialling {', '.join(gateway)}")
    node.run()
    machine = node.machine
    if machine.ended_by:
        tell(f"zmqinfer: this worker ends: {machine.ended_by}", err=True)
        raise click.exceptions.Exit(EXIT_FAILED if machine.was_welcome else EXIT_USAGE)
    if machine.held:
        tell(f"zmqinfer: the time of grace is over, {machine.held} requests go back to the gateway", err=True)
        raise click.exceptions.Exit(EXIT_FAILED)


def _pulse(descriptor: int | None, drain: Callable[[], None]) -> Pulse | None:
    """Returns what tells the process that started this one that it lives, and drains when that one is gone."""
    if descriptor is None:
        return None
    from zmqinfer.launch.pulse import Pulse

    pulse = Pulse(descriptor, drain)
    pulse.start()
    return pulse


def _on_signals(first: Callable[[], None], second: Callable[[], None] | None = None) -> None:
    """Calls `first` at the first SIGTERM or Ctrl-C, and `second` at the next."""
    asked = False

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal asked
        (second if asked and second is not None else first)()
        asked = True

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
