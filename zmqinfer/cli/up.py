"""`zmqinfer up`: gateways and workers of this machine, supervised."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zmqinfer.cli import EXIT_FAILED
from zmqinfer.cli.options import (
    FUNCTION_SETTINGS,
    Sectioned,
    Within,
    bound,
    check_source,
    given,
    log_option,
    refuse_beyond_loopback,
    setting_options,
    strict_option,
    tell,
)
from zmqinfer.config import DEFAULT_CLIENTS, DEFAULT_WORKERS, GatewaySettings, ModelSettings, WorkerSettings
from zmqinfer.errors import ConfigError, ZmqInferError
from zmqinfer.node.addresses import addresses_of
from zmqinfer.node.report import start_logging

if TYPE_CHECKING:
    from zmqinfer.launch.child import Child
    from zmqinfer.launch.supervisor import Supervisor

__all__ = ["up"]

_START_S = 30.0
# Beyond its grace, for a process to end.
_EXTRA_S = 1.0
_LOOK_S = 0.1
_LAST_PORT = 65_535
# Four signs of life of the pulse: with less a machine that is busy for a moment costs healthy processes.
_LEAST_HANG_S = 2.0
_GATEWAY, _WORKER = (tuple(one.name for one in group.describe()) for group in (GatewaySettings, WorkerSettings))
# What both have is one option, for both.
_BOTH = tuple(name for name in _GATEWAY if name in _WORKER)
_GATEWAY_ONLY = tuple(name for name in _GATEWAY if name not in _BOTH)
_WORKER_ONLY = tuple(name for name in _WORKER if name not in _BOTH)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@click.command(cls=Sectioned)
@click.argument("target", metavar="[MODULE:CALLABLE]", required=False)
@click.option("--workers", type=click.IntRange(1, 256), default=3, show_default=True, help="How many workers.")
@click.option("--gateways", type=click.IntRange(1, 64), default=1, show_default=True, help="How many gateways.")
@click.option("--clients", default=DEFAULT_CLIENTS, show_default=True, help="Where clients dial.")
@click.option("--workers-at", default=DEFAULT_WORKERS, show_default=True, help="Where workers dial.")
@click.option(
    "--models", multiple=True, type=click.Path(path_type=Path), help="A folder of model folders; may be repeated."
)
@strict_option
@setting_options(GatewaySettings, *_BOTH, section="Settings of gateways and workers")
@setting_options(WorkerSettings, *_WORKER_ONLY, section="Settings of workers")
@setting_options(GatewaySettings, *_GATEWAY_ONLY, section="Settings of gateways")
@setting_options(ModelSettings, *FUNCTION_SETTINGS, section="Settings of MODULE:CALLABLE")
@click.option(
    "--hang-s",
    type=Within(0, 3_600),
    default=10.0,
    show_default=True,
    help=f"A process that gives no sign of life for so long, {_LEAST_HANG_S:g} s or more, is killed and started again;"
    " 0: never.",
)
@log_option
def up(
    target: str | None,
    workers: int,
    gateways: int,
    clients: str,
    workers_at: str,
    models: tuple[Path, ...],
    strict: bool,
    hang_s: float,
    log_level: str,
    **values: Any,
) -> None:
    """Serve models, or a function or class, on this machine until Ctrl-C, which drains.

    Without MODULE:CALLABLE and --models the shipped models are served: digits, echo and sleep.
    SIGHUP starts the gateways and workers again, one after another, each when it has finished what it holds;
    when the terminal is closed all drain and end. Under nohup neither happens.
    """
    from zmqinfer.launch.supervisor import Supervisor

    addresses_of([clients, workers_at])
    refuse_beyond_loopback(clients, workers_at)
    _check_settings(hang_s, values)
    _check_models(target, models, is_strict=strict)
    start_logging(log_level)
    fronts = [_door("--clients", clients, number) for number in range(gateways)]
    backs = [_door("--workers-at", workers_at, number) for number in range(gateways)]
    doors = _check_doors([*fronts, *backs])
    fronts, backs = doors[:gateways], doors[gateways:]
    grace_s = values["drain_grace_s"]
    both = ["--log-level", log_level, "--drain-grace-s", str(grace_s)]
    gateway_children = _gateways(fronts, backs, both)
    worker_children = _workers(workers, backs, _source(target, models, is_strict=strict), both)
    supervisor = Supervisor([*gateway_children, *worker_children], hang_s)
    stopping, hurry = threading.Event(), threading.Event()
    _on_signals(stopping, hurry)
    for child in supervisor.children:
        child.start()
    threading.Thread(target=_announce, args=(fronts, backs, worker_children, stopping), daemon=True).start()
    try:
        _tend(supervisor, stopping)
    finally:
        stopping.set()
        if not supervisor.gave_up:
            tell(f"draining, up to {grace_s:g} s; a second Ctrl-C ends all at once", err=True)
        # Gateways first: what they have let in is still to run.
        supervisor.stop(gateway_children, grace_s + _EXTRA_S, hurry)
        supervisor.stop(worker_children, grace_s + _EXTRA_S, hurry)
    if supervisor.gave_up:
        tell(f"zmqinfer: up gave up: {supervisor.gave_up}", err=True)
        raise click.exceptions.Exit(supervisor.exit_code)
    if not all(child.is_whole for child in worker_children):
        tell("zmqinfer: drained and stopped; not all models were served, see the errors above", err=True)
        raise click.exceptions.Exit(EXIT_FAILED)
    tell("drained and stopped")


def _check_settings(hang_s: float, values: dict[str, Any]) -> None:
    for group in (GatewaySettings, WorkerSettings):
        bound(group, values)
    bound(ModelSettings, {name: values[name] for name in FUNCTION_SETTINGS})
    if 0 < hang_s < _LEAST_HANG_S:
        raise ConfigError(
            f"--hang-s is {hang_s:g}, expected {_LEAST_HANG_S:g} or more, for what is healthy may be silent for less;"
            " use 0 to kill nothing"
        )


def _check_models(target: str | None, folders: Sequence[Path], *, is_strict: bool) -> None:
    """Finds mistakes before any process is started, as far as that runs nothing of the user's: workers load models."""
    check_source("MODULE:CALLABLE", target, folders)
    from zmqinfer.node.models import check_target, find_models

    if target is not None:
        check_target(target)
    elif folders:
        mistakes: list[ConfigError] = []
        if not find_models(folders, None if is_strict else mistakes.append):
            raise mistakes[0]


def _source(target: str | None, folders: Sequence[Path], *, is_strict: bool) -> list[str]:
    """Returns what tells a worker what to serve."""
    if target is not None:
        return ["--function", target, *given(ModelSettings, *FUNCTION_SETTINGS)]
    words = [part for folder in folders for part in ("--models", str(folder))] or ["--demo"]
    return [*words, "--strict"] if is_strict else words


def _gateways(fronts: Sequence[str], backs: Sequence[str], both: Sequence[str]) -> list[Child]:
    from zmqinfer.launch.child import Child

    return [
        Child(f"gateway_{number}", ["gateway", "--clients", front, "--workers", back, *given(GatewaySettings), *both])
        for number, (front, back) in enumerate(zip(fronts, backs, strict=True))
    ]


def _workers(count: int, backs: Sequence[str], source: Sequence[str], both: Sequence[str]) -> list[Child]:
    from zmqinfer.launch.child import Child

    threads = str(max(1, (os.cpu_count() or 1) // count))
    # Before NumPy is loaded: three workers on two cores must not fight over them.
    environment = {name: os.environ.get(name, threads) for name in _THREADS}
    words = ["--gateway", ",".join(backs), *source, *given(WorkerSettings), *both]
    names = [f"worker_{number}" for number in range(1, count + 1)]
    return [Child(name, ["worker", "--name", name, *words], environment) for name in names]


def _on_signals(stopping: threading.Event, hurry: threading.Event) -> None:
    """Sets the first event at the first SIGTERM or Ctrl-C, and the second at the next."""

    def on_signal(_number: int, _frame: object) -> None:
        (hurry if stopping.is_set() else stopping).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


def _tend(supervisor: Supervisor, stopping: threading.Event) -> None:
    """Looks after the children until there is a reason to stop."""
    from zmqinfer.launch.terminal import Hangup, Wish, has_terminal

    hangup = Hangup(has_terminal=has_terminal())
    hung_up = threading.Event()
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: hung_up.set())
    while not (stopping.wait(_LOOK_S) or supervisor.gave_up or all(child.is_done for child in supervisor.children)):
        now = time.monotonic()
        supervisor.tend(now)
        if is_asked := hung_up.is_set():
            hung_up.clear()
        wish = hangup.look(now, has_terminal=has_terminal(), is_asked=is_asked)
        if wish is Wish.RENEW:
            supervisor.renew()
        elif wish is Wish.END:
            tell("the terminal has gone", err=True)
            return


def _door(option: str, address: str, number: int) -> str:
    """Returns where gateway `number`, from 0, listens: 2 ports further each.

    Raises:
        ConfigError: there is no such port.
    """
    if address.startswith("ipc://"):
        return f"{address}-{number}" if number else address
    head, _, port = address.rpartition(":")
    if port != "0":
        port = str(int(port) + 2 * number)
    if int(port) > _LAST_PORT:
        raise ConfigError(
            f"{option} {address} gives gateway {number}, from 0, port {port}, expected at most {_LAST_PORT}: each"
            " adds 2; choose a lower port or fewer --gateways"
        )
    return f"{head}:{port}"


def _check_doors(addresses: list[str]) -> list[str]:
    """Finds addresses that cannot be had before anything is started; returns them, with a real port for each 0.

    Raises:
        ConfigError: one is written wrongly, there twice, or taken.
    """
    from zmqinfer.node import sockets

    addresses_of(addresses)
    fixed = [address for address in addresses if not address.endswith(":0")]
    if len(set(fixed)) < len(fixed):
        raise ConfigError(
            f"--clients and --workers-at make {', '.join(addresses)}, expected each once: gateway n, from 0, adds 2 n"
            " to both ports; choose them further apart, or neighbours"
        )
    context = sockets.new_context()
    try:
        # All at once, so that the system gives each 0 another port.
        bound_to = [sockets.endpoint(sockets.router(context, address)[0]) for address in addresses]
    except ConfigError as error:
        raise ConfigError(f"{error}, with --clients and --workers-at") from error
    finally:
        context.destroy(linger=0)
    return [real if one.endswith(":0") else one for one, real in zip(addresses, bound_to, strict=True)]


def _announce(
    clients: Sequence[str], workers: Sequence[str], children: Sequence[Child], stopping: threading.Event
) -> None:
    """Says one line when everybody is there; a thread, for the supervisor must not wait for it."""
    from zmqinfer.client import Client

    count = len(children)
    started_at = time.monotonic()
    with Client(clients, connect_timeout_s=_START_S) as client:
        while not stopping.wait(0.05):
            try:
                gateways = client.status(timeout_s=1.0)
                models = sorted({f"{one['name']}" for answer in client.models(timeout_s=1.0) for one in answer})
            except ZmqInferError:
                continue
            are_there = all(sum(worker["state"] == "ready" for worker in one["workers"]) >= count for one in gateways)
            # Ours have said so as well, and whether they serve all.
            if are_there and all(child.was_ready for child in children):
                break
            if time.monotonic() - started_at > _START_S:
                tell(f"still waiting for {count} workers after {_START_S:g} s; see the log above", err=True)
                started_at = float("inf")
        else:
            return
    missing = "" if all(child.is_whole for child in children) else ", but not all models, see the errors above"
    tell(
        f"ready: {', '.join(models)} on {count} workers{missing}; clients dial {','.join(clients)}, workers dial"
        f" {','.join(workers)}; Ctrl-C drains"
    )
