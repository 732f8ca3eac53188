"""`zmqinfer bench` and `zmqinfer report`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zmqinfer.cli import EXIT_FAILED
from zmqinfer.cli.options import clients_option
from zmqinfer.errors import ConfigError

if TYPE_CHECKING:
    from zmqinfer.load.generator import Progress
    from zmqinfer.load.results import BenchResult, ClosedLoop, OpenLoop, Scenario

__all__ = ["bench", "report"]

_PRESETS = ("light", "medium", "heavy")


@click.command()
@clients_option
@click.option("--model", default="digits", show_default=True, help="Which model to load.")
@click.option("--preset", "presets", multiple=True, type=click.Choice(_PRESETS), help="A closed loop; may be repeated.")
@click.option("--requests", type=click.IntRange(1, 10_000_000), help="Closed loop: requests a round.  [default: 5000]")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Closed loop: requests in flight.  [default: 50]")
@click.option("--rate", type=click.FloatRange(0.1, 1_000_000), help="Open loop: requests a second.")
@click.option("--duration-s", type=click.FloatRange(0.1, 3_600), default=10.0, show_default=True, help="Open loop.")
@click.option(
    "--compare/--no-compare",
    default=True,
    show_default=True,
    help="Also run the presets side by side, and batching on against off.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Where to write."
)
def bench(
    gateway: list[str],
    model: str,
    presets: tuple[str, ...],
    requests: int | None,
    concurrency: int | None,
    rate: float | None,
    duration_s: float,
    compare: bool,
    out: Path,
) -> None:
    """Make load, check every answer, and write figures and pictures.

    A closed loop runs rounds until at least 3 s and 3 rounds have passed; an open loop runs once.
    Exit code 1 if any request failed or any answer was wrong.
    """
    from zmqinfer.load import plots
    from zmqinfer.load import report as text
    from zmqinfer.load.results import write_results

    loads = _loads(presets, requests, concurrency, rate, duration_s)
    present = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not present.is_dir() or not os.access(present, os.W_OK):
        raise ConfigError(f"--out {out} cannot be made: {present} is no folder that can be written to; choose another")
    result = asyncio.run(_run(gateway, model, loads, compare=compare))
    write_results(result, out)
    text.write_report(result, out)
    plots.write_pictures(result, out)
    click.echo(text.headline(result))
    click.echo(f"see {out / 'performance_report.txt'} and the pictures beside it")
    if not result.is_clean:
        raise click.exceptions.Exit(EXIT_FAILED)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
def report(directory: Path) -> None:
    """Draw the pictures and write the report of DIRECTORY again from its benchmark_results.json."""
    from zmqinfer.load import plots
    from zmqinfer.load import report as text
    from zmqinfer.load.results import read_results

    result = read_results(directory)
    text.write_report(result, directory)
    plots.write_pictures(result, directory)
    click.echo(text.headline(result))


def _loads(
    presets: tuple[str, ...], requests: int | None, concurrency: int | None, rate: float | None, duration_s: float
) -> dict[str, ClosedLoop | OpenLoop]:
    from zmqinfer.load.generator import PRESETS
    from zmqinfer.load.results import ClosedLoop, OpenLoop

    closed = requests is not None or concurrency is not None
    if sum([bool(presets), closed, rate is not None]) > 1:
        raise ConfigError("--preset, --requests with --concurrency, and --rate exclude each other; choose one")
    if presets:
        return {name: PRESETS[name] for name in presets}
    if rate is not None:
        return {f"{rate:g} a second": OpenLoop(rate, duration_s)}
    if closed:
        return {"custom": ClosedLoop(concurrency or 50, requests or 5_000)}
    return {"medium": PRESETS["medium"]}


async def _run(
    gateway: list[str], model: str, loads: dict[str, ClosedLoop | OpenLoop], *, compare: bool
) -> BenchResult:
    from zmqinfer.aio import AsyncClient
    from zmqinfer.load.generator import PRESETS, run_scenario
    from zmqinfer.load.results import Batching, BenchResult, Configuration, Machine, Versions
    from zmqinfer.load.workload import prepare

    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    comparison: list[Scenario] = []
    async with AsyncClient(gateway) as client:
        status = await client.status()
        cards = (await client.models())[0]
        workload = await prepare(client, model, cards)
        scenarios = []
        for name, load in loads.items():
            with _progress(f"{model} {name}", load) as progress:
                scenarios.append(await run_scenario(client, name, workload, load, progress=progress))
        workers = sum(worker["state"] == "ready" for worker in status[0]["workers"])
        if compare:
            for name in _PRESETS:
                if name not in loads:
                    with _progress(f"{model} {name}", PRESETS[name]) as progress:
                        scenario = await run_scenario(client, name, workload, PRESETS[name], progress=progress)
                    comparison.append(scenario)
            served = {str(card["name"]) for card in cards}
            # sleep in its light form: one row at a time it does 100 requests a second on each worker.
            pairs = [(one, preset) for one, preset in (("digits", "medium"), ("sleep", "light")) if one in served]
            for one, preset in pairs:
                work = await prepare(client, one, cards)
                with _progress(f"{one} batching on", PRESETS[preset]) as progress:
                    comparison.append(
                        await run_scenario(
                            client, preset, work, PRESETS[preset], batching=Batching.ON, progress=progress
                        )
                    )
            if pairs:
                comparison += await _without_batching(workers, pairs)
    return BenchResult(
        tuple(scenarios),
        tuple(comparison),
        Machine.here(),
        Versions.installed(),
        Configuration(workers, tuple(gateway)),
        started_at,
        " ".join(["zmqinfer", *sys.argv[1:]]),
    )


async def _without_batching(workers: int, pairs: list[tuple[str, str]]) -> list[Scenario]:
    """Runs the same loads on a cluster of its own, on free ports, whose batches hold one row."""
    from zmqinfer.aio import AsyncClient
    from zmqinfer.launch.processes import ProcessCluster
    from zmqinfer.load.generator import PRESETS, run_scenario
    from zmqinfer.load.results import Batching
    from zmqinfer.load.workload import prepare

    scenarios = []
    with ProcessCluster(workers, max_batch_size=1) as cluster:
        async with AsyncClient(cluster.clients_address) as client:
            cards = (await client.models())[0]
            for one, preset in pairs:
                work = await prepare(client, one, cards)
                with _progress(f"{one} batching off", PRESETS[preset]) as progress:
                    scenarios.append(
                        await run_scenario(
                            client, preset, work, PRESETS[preset], batching=Batching.OFF, progress=progress
                        )
                    )
    return scenarios


@contextlib.contextmanager
def _progress(name: str, load: ClosedLoop | OpenLoop) -> Iterator[Progress | None]:
    """Shows the live rate while a scenario runs, if standard output is a terminal."""
    if not sys.stdout.isatty():
        yield None
        return
    from zmqinfer.load.results import OpenLoop

    began = time.perf_counter()
    answers = 0
    length = round(load.rate_per_s * load.duration_s) if isinstance(load, OpenLoop) else None
    shown_at = 0.0

    def advance(count: int) -> None:
        nonlocal answers, shown_at
        answers += count
        now = time.perf_counter()
        if now - shown_at > 0.1:
            shown_at = now
            part = f" of {length:,}" if length else ""
            rate = answers / max(now - began, 1e-9)
            click.echo(f"\r{name:<24} {answers:>10,}{part} answers  {rate:>9,.0f} a second ", nl=False)

    yield advance
    click.echo(f"\r{name:<24} {answers:>10,} answers  {answers / (time.perf_counter() - began):>9,.0f} a second ")
