"""`status`, `models`, `ring` and `drain`: questions to running gateways."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import click

from zmqinfer.cli import EXIT_FAILED, EXIT_NOBODY
from zmqinfer.cli.options import Within, check_name, clients_option
from zmqinfer.errors import ConfigError, Unavailable, ZmqInferError

__all__ = ["drain", "models", "ring", "status"]

_timeout = click.option(
    "--timeout-s", type=Within(0.1, 300), default=5.0, show_default=True, help="How long to wait for answers."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def _client(gateway: list[str], timeout_s: float) -> Any:
    from zmqinfer.client import Client

    return Client(gateway, connect_timeout_s=timeout_s)


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


@click.command()
@clients_option
@click.option("--wait-workers", type=click.IntRange(0), default=0, help="Wait until so many workers are ready.")
@_timeout
@_json
def status(gateway: list[str], wait_workers: int, timeout_s: float, as_json: bool) -> None:
    """Show gateways, workers and counters."""
    give_up_at = time.monotonic() + timeout_s
    if wait_workers and not as_json:
        click.echo(f"waiting for {wait_workers} ready workers, at most {timeout_s:g} s", err=True)
    with _client(gateway, timeout_s) as client:
        while True:
            left_s = max(0.1, give_up_at - time.monotonic())
            answers = client.status(timeout_s=left_s)
            ready = min(sum(worker["state"] == "ready" for worker in one["workers"]) for one in answers)
            if len(answers) < len(gateway) and wait_workers:
                ready = 0
            if ready >= wait_workers:
                break
            if time.monotonic() >= give_up_at:
                raise Unavailable(
                    f"{ready} of {wait_workers} workers were ready after {timeout_s:g} s;"
                    " start more with: zmqinfer worker --models DIR"
                )
            time.sleep(0.05)
    if as_json:
        click.echo(json.dumps({"schema": 1, "gateways": answers}, indent=2))
    else:
        from zmqinfer.cli.shown import status_lines

        _tell(line for one in answers for line in status_lines(one))
    if len(answers) < len(gateway):
        missing = sorted(set(gateway) - {one["address"] for one in answers})
        click.echo(f"zmqinfer: {len(answers)} of {len(gateway)} gateways answered; not: {', '.join(missing)}", err=True)
        raise click.exceptions.Exit(EXIT_FAILED)


@click.command()
@clients_option
@_timeout
@_json
def models(gateway: list[str], timeout_s: float, as_json: bool) -> None:
    """List the models that can be called, with their inputs and outputs."""
    from zmqinfer.cli.shown import model_lines

    with _client(gateway, timeout_s) as client:
        answer = client.models(timeout_s=timeout_s)[0]
    if as_json:
        click.echo(json.dumps({"schema": 1, "models": answer}, indent=2))
        return
    if not answer:
        click.echo("no model is served now; start a worker with: zmqinfer worker --models DIR")
    _tell(model_lines(answer))


@click.command()
@clients_option
@click.option("--explain", "key", help="Say the home of this key and who comes next.")
@click.option("--without", help="Say which share of the keys would move if this worker left.")
@click.option("--with", "joining", help="Say which share of the keys would move if a worker of this name joined.")
@_timeout
@_json
def ring(
    gateway: list[str], key: str | None, without: str | None, joining: str | None, timeout_s: float, as_json: bool
) -> None:
    """Show who owns which share of the keys."""
    from zmqinfer.cli.shown import ring_lines
    from zmqinfer.policy.ring import Ring, key_hash

    check_name("--with", joining)
    with _client(gateway, timeout_s) as client:
        one = client.status(timeout_s=timeout_s)[0]
    weights = {worker["name"]: worker["weight"] for worker in one["workers"] if worker["state"] == "ready"}
    if not weights:
        raise Unavailable("no worker is ready, so nobody owns a key; start one with: zmqinfer worker --models DIR")
    present = Ring(weights)
    share = present.share()
    # Of shares relative to the weights: a worker of weight 2 should own twice as much.
    fair = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    peak = max(share[name] / fair[name] for name in weights)
    report: dict[str, Any] = {"schema": 1, "ring_version": present.version, "shares": share, "peak_to_mean": peak}
    if key is not None:
        report["key"] = {"key": key, "order": list(present.order(key_hash(key.encode())))}
    if without is not None:
        if without not in weights:
            raise ConfigError(f"--without {without!r}: no such worker is ready; ready: {', '.join(sorted(weights))}")
        report["moved_without"] = present.moved(Ring({n: w for n, w in weights.items() if n != without}))
    if joining is not None:
        if joining in weights:
            raise ConfigError(f"--with {joining!r}: a worker of this name is there already; choose another")
        report["moved_with"] = present.moved(Ring({**weights, joining: 1.0}))
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    _tell(ring_lines(present.version, peak, weights, share))
    if key is not None:
        home, *others = report["key"]["order"]
        click.echo(f"key {key!r}: home {home}, then {', then '.join(others) or 'nobody'}")
    if without is not None:
        click.echo(f"without {without}: {report['moved_without']:.2%} of the keys would move")
    if joining is not None:
        click.echo(f"with {joining}: {report['moved_with']:.2%} of the keys would move")


@click.command()
@click.argument("name")
@clients_option
@_timeout
def drain(name: str, gateway: list[str], timeout_s: float) -> None:
    """Let worker NAME finish what it holds and leave, as SIGTERM to it does."""
    with _client(gateway, timeout_s) as client:
        try:
            click.echo(client.drain(name, timeout_s=timeout_s))
        except Unavailable as error:
            click.echo(f"zmqinfer: {error}", err=True)
            raise click.exceptions.Exit(EXIT_NOBODY) from error
        except ZmqInferError as error:
            raise ConfigError(str(error)) from error
