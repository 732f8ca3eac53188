"""`zmqinfer bench` and `zmqinfer report`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from zmqinfer.cli import EXIT_FAILED
from zmqinfer.cli.files import arrays_of, read_file
from zmqinfer.cli.options import Within, clients_option
from zmqinfer.cli.scenarios import check_out, read_scenario, result_of, say_taken_back, write
from zmqinfer.errors import ConfigError

if TYPE_CHECKING:
    from zmqinfer.aio import AsyncClient
    from zmqinfer.load.generator import Progress
    from zmqinfer.load.results import Batching, BenchResult, ClosedLoop, LoadResult, OpenLoop
    from zmqinfer.load.workload import Workload
    from zmqinfer.machine.client.codec import Input

__all__ = ["bench", "report"]

_PRESETS = ("light", "medium", "heavy")
_DEFAULT = "digits"
# With batching on and off: models that are shipped, so that a cluster of our own can serve them, and their loads.
# sleep in its light form: one row at a time it does 100 requests a second on each worker.
_PAIRS = {"digits": "medium", "sleep": "light"}
_BESIDE_A_SCENARIO = ("scenario", "seed", "out", "help")


@click.command()
@click.argument("scenario", required=False)
@clients_option
@click.option("--model", help="The model to load.  [default: the only one that is served, or digits]")
@click.option(
    "--input",
    "file",
    metavar="FILE",
    help="One input, or rows of them: .npy, .npz or .json.  [default: made up from what the model takes]",
)
@click.option("--preset", "presets", multiple=True, type=click.Choice(_PRESETS), help="A closed loop; may be repeated.")
@click.option("--requests", type=click.IntRange(1, 10_000_000), help="Closed loop: requests a round.  [default: 5000]")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Closed loop: requests in flight.  [default: 50]")
@click.option("--rate", type=Within(0.1, 1_000_000), help="Open loop: requests a second.")
@click.option("--duration-s", type=Within(0.1, 3_600), default=10.0, show_default=True, help="Open loop: how long.")
@click.option(
    "--compare/--no-compare",
    default=True,
    show_default=True,
    help="Also run the presets side by side, and batching on against off.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**53),
    default=1,
    show_default=True,
    help="What the load of a SCENARIO is drawn from.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Where to write."
)
def bench(
    scenario: str | None,
    gateway: list[str],
    model: str | None,
    file: str | None,
    presets: tuple[str, ...],
    requests: int | None,
    concurrency: int | None,
    rate: float | None,
    duration_s: float,
    compare: bool,
    seed: int,
    out: Path,
) -> None:
    """Make load, check every answer, and write figures and pictures.

    With SCENARIO, a TOML file as `zmqinfer simulate` takes, its cluster is started on free ports and its load made;
    its faults do not happen.

    A closed loop runs rounds until at least 3 s and 3 rounds have passed; an open loop runs once.
    Exit code 1 if any request failed or any answer was wrong.
    """
    check_out(out)
    if scenario is None:
        loads = _loads(presets, requests, concurrency, rate, duration_s)
        raw = b"" if file is None else read_file(file)
        result = asyncio.run(_run(gateway, model, (file, raw), loads, compare=compare))
    else:
        _refuse_beside_a_scenario()
        result = _run_scenario(scenario, seed)
    write(result, out)
    if not result.is_clean:
        raise click.exceptions.Exit(EXIT_FAILED)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
def report(directory: Path) -> None:
    """Draw the pictures and write the report of DIRECTORY again from its benchmark_results.json."""
    from zmqinfer.load import plots
    from zmqinfer.load import report as text
    from zmqinfer.load.stored import read_results

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


def _refuse_beside_a_scenario() -> None:
    context = click.get_current_context()
    for option in context.command.params:
        name = option.name or ""
        if name not in _BESIDE_A_SCENARIO and context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise ConfigError(f"a SCENARIO says itself what is served and asked; leave out {option.opts[0]}")


def _run_scenario(name: str, seed: int) -> BenchResult:
    """Runs a scenario on a cluster of its own."""
    from zmqinfer.launch.processes import ProcessCluster
    from zmqinfer.load.live import run_live, write_models
    from zmqinfer.load.measured import measured
    from zmqinfer.load.results import Configuration
    from zmqinfer.scenario import Load, settings_of, source

    scenario = read_scenario(name)
    load = Load(scenario, seed)
    gateway, worker = settings_of(scenario, source(seed, "nodes"))
    if sum(most for _, most in scenario.faults.values()):
        click.echo("the faults of this scenario are left out: they happen in `zmqinfer simulate`", err=True)
    started_at = datetime.now(UTC)
    with TemporaryDirectory() as folder:
        write_models(scenario.models, Path(folder))
        with ProcessCluster(
            load.workers,
            models=[Path(folder)],
            gateways=load.gateways,
            gateway_settings=gateway,
            worker_settings=worker,
        ) as cluster:
            ended, before, after = asyncio.run(run_live(scenario, load, cluster.clients_address))
    addresses = tuple(cluster.clients_address.split(","))
    settings = {"seed": seed, **gateway, **worker}
    found = measured(scenario, load, ended, before, after)
    say_taken_back(load)
    return result_of(found, Configuration(load.workers, addresses, settings), started_at)


async def _run(
    gateway: list[str],
    model: str | None,
    given: tuple[str | None, bytes],
    loads: dict[str, ClosedLoop | OpenLoop],
    *,
    compare: bool,
) -> BenchResult:
    from zmqinfer.aio import AsyncClient
    from zmqinfer.load.generator import PRESETS
    from zmqinfer.load.results import BenchResult, Configuration, Machine, Versions
    from zmqinfer.load.workload import prepare

    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    comparison: list[LoadResult] = []
    async with AsyncClient(gateway) as client:
        status = await client.status()
        cards = (await client.models())[0]
        model = _chosen(model, cards)
        workload = await prepare(client, model, cards, _rows(*given, model, cards))
        if workload.note:
            click.echo(workload.note, err=True)
        scenarios = [await _measure(client, name, workload, load) for name, load in loads.items()]
        workers = sum(worker["state"] == "ready" for worker in status[0]["workers"])
        if compare:
            others = {name: PRESETS[name] for name in _PRESETS if name not in loads}
            comparison = [await _measure(client, name, workload, load) for name, load in others.items()]
            if model in _PAIRS and not workload.note:
                comparison += await _on_and_off(client, cards, workers)
    return BenchResult(
        tuple(scenarios),
        tuple(comparison),
        Machine.here(),
        Versions.installed(),
        Configuration(workers, tuple(gateway)),
        started_at,
        " ".join(["zmqinfer", *sys.argv[1:]]),
    )


def _chosen(model: str | None, cards: Sequence[Mapping[str, object]]) -> str:
    served = sorted({str(card["name"]) for card in cards})
    if model is None and len(served) != 1 and _DEFAULT not in served:
        raise ConfigError(f"--model is missing; served there: {', '.join(served) or 'nothing'}")
    return model or (_DEFAULT if _DEFAULT in served else served[0])


def _rows(file: str | None, raw: bytes, model: str, cards: list[dict[str, object]]) -> Sequence[Input]:
    from zmqinfer.load.inputs import rows_of
    from zmqinfer.load.workload import signature_of

    inputs = signature_of(model, cards).inputs
    return () if file is None else rows_of(arrays_of(raw, file, inputs), inputs)


async def _measure(
    client: AsyncClient, name: str, workload: Workload, load: ClosedLoop | OpenLoop, batching: Batching | None = None
) -> LoadResult:
    from zmqinfer.load.generator import run_scenario

    with _progress(f"{workload.model} {f'batching {batching}' if batching else name}", load) as progress:
        return await run_scenario(client, name, workload, load, batching=batching, progress=progress)


async def _on_and_off(client: AsyncClient, cards: list[dict[str, object]], workers: int) -> list[LoadResult]:
    """Loads shipped models here, and on a cluster of its own, on free ports, whose batches hold one row."""
    from zmqinfer.aio import AsyncClient
    from zmqinfer.launch.processes import ProcessCluster
    from zmqinfer.load.generator import PRESETS
    from zmqinfer.load.results import Batching
    from zmqinfer.load.workload import prepare

    async def side(client: AsyncClient, batching: Batching) -> list[LoadResult]:
        pairs = [(model, preset) for model, preset in _PAIRS.items() if any(card["name"] == model for card in cards)]
        works = [(await prepare(client, model, cards), preset) for model, preset in pairs]
        return [await _measure(client, preset, work, PRESETS[preset], batching) for work, preset in works]

    on = await side(client, Batching.ON)
    with ProcessCluster(workers, max_batch_size=1) as cluster:
        async with AsyncClient(cluster.clients_address) as single:
            return on + await side(single, Batching.OFF)


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
