"""`zmqinfer simulate`."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zmqinfer.cli import EXIT_FAILED
from zmqinfer.cli.scenarios import check_out, read_scenario, result_of, say_taken_back, write
from zmqinfer.errors import ConfigError, Status
from zmqinfer.node.spawn import end_with

if TYPE_CHECKING:
    from zmqinfer.scenario import Scenario
    from zmqinfer.sim.run import Result
    from zmqinfer.sim.world import World

__all__ = ["simulate"]

_SHOWN_FAILURES = 5
# Seeds that one job takes at a time.
_CHUNK = 2
# What differs between two runs that violate the same rule.
_NUMBERS = re.compile(r"[0-9][0-9.]*")


@click.command()
@click.argument("scenario")
@click.option("--seed", type=click.IntRange(0, 2**53), default=1, show_default=True, help="The first seed.")
@click.option(
    "--schedules", type=click.IntRange(1, 10_000_000), default=1, show_default=True, help="How many seeds, from there."
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=lambda: os.cpu_count() or 1,
    help="How many processes.  [default: a core each]",
)
@click.option("--faults", help="Of a seed's faults only these, as a failing run names them: 0,3,4. - for none.")
@click.option("--shrink/--no-shrink", default=True, show_default=True, help="Look for the fewest faults that fail.")
@click.option("--out", type=click.Path(path_type=Path), help="Of a single seed: where to write figures and pictures.")
def simulate(
    scenario: str, seed: int, schedules: int, jobs: int, faults: str | None, shrink: bool, out: Path | None
) -> None:
    """Run the machines of gateways, workers and clients in virtual time, with faults drawn from a seed.

    SCENARIO is a TOML file, or the name of one that is shipped: backlogs, hangs, hedges, large, losses, mixed,
    poisons, reconnects, restarts, rolls.
    One seed gives one run, always the same. Exit code 1 if anything was violated that must always hold,
    or a kind of fault never fired.
    """
    asked = read_scenario(scenario)
    chosen = _places(faults)
    if seed + schedules > 2**53:
        raise ConfigError(f"--seed {seed} and --schedules {schedules} go beyond 2**53; begin with a smaller seed")
    if out is not None:
        if schedules > 1:
            raise ConfigError(
                f"--out is for the figures of one seed, but --schedules is {schedules}; leave one of both"
            )
        check_out(out)
    began_at = time.perf_counter()
    results = (
        [_measure(asked, seed, chosen, out)]
        if out is not None
        else list(_runs(asked, range(seed, seed + schedules), jobs, chosen))
    )
    wall_s = time.perf_counter() - began_at
    fired: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for result in results:
        fired.update(result.fired)
        drawn.update(result.drawn)
        outcomes.update(result.outcomes)
    simulated_s = sum(result.simulated_s for result in results)
    events = sum(result.events for result in results)
    click.echo(
        f"{schedules:,} schedules, {sum(outcomes.values()):,} calls, {simulated_s:,.0f} s simulated in {wall_s:.1f} s"
        f" ({events:,} events), digest {_digest(results)}"
    )
    click.echo("faults    " + (", ".join(f"{kind} {count:,}" for kind, count in fired.items()) or "none"))
    click.echo("outcomes  " + ", ".join(f"{status} {count:,}" for status, count in sorted(outcomes.items())))
    failed = [result for result in results if result.violation]
    for result in failed[:_SHOWN_FAILURES]:
        click.echo(f"seed {result.seed}: {result.violation}", err=True)
        if chosen is None and shrink:
            click.echo(f"  {_replay(scenario, asked, result.seed, result.violation)}", err=True)
    if len(failed) > _SHOWN_FAILURES:
        click.echo(f"and {len(failed) - _SHOWN_FAILURES:,} more", err=True)
    if not failed:
        click.echo("nothing was violated")
    idle = [kind for kind, count in drawn.items() if count and not fired[kind]]
    if idle:
        click.echo(
            f"never had a victim, so nothing was shown of them: {', '.join(idle)};"
            f" more schedules give them more chances, for example --schedules {10 * schedules}",
            err=True,
        )
    if failed or idle:
        raise click.exceptions.Exit(EXIT_FAILED)


def _places(faults: str | None) -> list[int] | None:
    if faults is None:
        return None
    try:
        return [] if faults == "-" else [int(place) for place in faults.split(",")]
    except ValueError as cause:
        raise ConfigError(f"--faults is {faults!r}, expected numbers with commas between, or -") from cause


def _runs(scenario: Scenario, seeds: range, jobs: int, chosen: Sequence[int] | None) -> Iterator[Result]:
    if jobs == 1 or len(seeds) == 1:
        for seed in seeds:
            yield _run(scenario, seed, chosen)
        return
    pool = ProcessPoolExecutor(jobs, initializer=end_with, initargs=(os.getpid(),))
    try:
        with _uninterrupted():
            work = pool.map(_run, [scenario] * len(seeds), seeds, [chosen] * len(seeds), chunksize=_CHUNK)
        is_shown = sys.stderr.isatty()
        for number, result in enumerate(work, 1):
            if is_shown and not number % 100:
                click.echo(f"\r{number:,} of {len(seeds):,}", nl=False, err=True)
            yield result
        if is_shown:
            click.echo("\r", nl=False, err=True)
    except BaseException:
        # The pool would wait for all that it has given out.
        for process in multiprocessing.active_children():
            process.kill()
        raise
    finally:
        pool.shutdown()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Has Ctrl-C wait: the pool waits for a process whose start it broke off, and nobody could end that."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _run(
    scenario: Scenario, seed: int, chosen: Sequence[int] | None, watch: Callable[[World], None] | None = None
) -> Result:
    from zmqinfer.sim.run import faults_of, run

    drawn = faults_of(scenario, seed)
    if chosen is not None and not all(0 <= place < len(drawn) for place in chosen):
        raise ConfigError(f"--faults names {max(chosen)}, but seed {seed} has only the faults 0 to {len(drawn) - 1}")
    faults = drawn if chosen is None else [drawn[place] for place in chosen]
    return run(scenario, seed, faults, watch)


def _measure(scenario: Scenario, seed: int, chosen: Sequence[int] | None, out: Path) -> Result:
    """Does one run and writes its figures as `zmqinfer bench` does, unless something was violated."""
    from zmqinfer.load.measured import Ended, measured
    from zmqinfer.load.results import Configuration

    started_at = datetime.now(UTC)
    seen: list[World] = []
    looks: list[list[dict[str, Any]]] = []

    def watch(world: World) -> None:
        seen.append(world)
        for at in (world.scenario.warm_up_s, world.scenario.duration_s):
            world.timeline.at(at, lambda: looks.append(world.statuses()))

    result = _run(scenario, seed, chosen, watch)
    if result.violation:
        click.echo(f"the run was broken off by what was violated, so nothing is written to {out}", err=True)
        return result
    world = seen[0]
    ended = [
        Ended(
            call.model, call.sent_at, call.ended_at - call.sent_at, "" if call.status is Status.OK else call.status.name
        )
        for call in world.history.calls
        if call.status is not None and not call.is_fleeting
    ]
    gateways = tuple(f"gateway {number}, simulated" for number in range(world.load.gateways))
    settings: dict[str, str | int] = {"time": "virtual", "seed": seed, "faults": sum(result.fired.values())}
    configuration = Configuration(world.load.workers, gateways, settings)
    named = dataclasses.replace(world.scenario, name=f"{world.scenario.name}, simulated")
    say_taken_back(world.load)
    write(result_of(measured(named, world.load, ended, *looks), configuration, started_at), out)
    return result


def _digest(results: Sequence[Result]) -> str:
    if len(results) == 1:
        return results[0].digest
    import hashlib

    return hashlib.blake2b("".join(result.digest for result in results).encode(), digest_size=8).hexdigest()


def _replay(name: str, scenario: Scenario, seed: int, violation: str) -> str:
    """Returns the command that replays a failing run with as few faults as will do, for the same violation."""
    from zmqinfer.sim.run import faults_of
    from zmqinfer.sim.shrink import shrink

    drawn = faults_of(scenario, seed)

    def fails(places: Sequence[int]) -> bool:
        found = _run(scenario, seed, places).violation
        return _NUMBERS.sub("#", found) == _NUMBERS.sub("#", violation)

    few = shrink(range(len(drawn)), fails)
    told = "; ".join(str(drawn[place]) for place in few) or "none at all"
    return f"zmqinfer simulate {name} --seed {seed} --faults {','.join(map(str, few)) or '-'}   # {told}"
