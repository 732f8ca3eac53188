"""Measures zmqinfer, its floors and its peers in turns, and writes results/compare/.

./run.sh compare            at most 30 minutes
./run.sh compare --quick    at most 5: one short repeat; good for a look, not for a claim
"""

from __future__ import annotations

import datetime as dt
import json
import platform
import shlex
import sys
import time
from collections import defaultdict
from pathlib import Path

from bench.bare_loop import run as bare_loop
from bench.command import Command, whole, within
from bench.compare import plots, table
from bench.compare.figures import Cell, Figures
from bench.compare.promises import pairs_to_measure
from bench.compare.systems import SYSTEMS, System
from bench.packages import Missing
from zmqinfer.load.results import Machine

MODELS = ("echo", "mlp", "big")
# Of what is measured in turns: how often each, and how long.
TURNS, TURN_S = 5, 1.5


def main() -> None:
    """Runs the comparison."""
    options = Command("./run.sh compare", __doc__)
    options.add_argument("--quick", action="store_true", help="one repeat of short windows")
    options.add_argument("--repeats", type=whole, help="how often everything is measured (3, quick 1)")
    options.add_argument("--seconds", type=within, help="of each window (2, quick 0.7)")
    options.add_argument(
        "--only",
        action="append",
        choices=[one.name for one in SYSTEMS],
        metavar="NAME",
        help="one of: " + ", ".join(one.name for one in SYSTEMS) + "; may be repeated",
    )
    options.add_argument("--model", action="append", choices=MODELS, help="may be repeated")
    options.add_argument("--out", type=Path, default=Path("results/compare"), help="folder (%(default)s)")
    asked = options.parse_args()
    repeats = asked.repeats or (1 if asked.quick else 3)
    seconds = asked.seconds or (0.7 if asked.quick else 2.0)
    began_at = time.monotonic()
    systems, notes = _prepared([one for one in SYSTEMS if not asked.only or one.name in asked.only])
    results: defaultdict[Cell, list[Figures]] = defaultdict(list)
    bare_us: list[float] = []
    for repeat in range(repeats):
        bare_us.append(bare_loop(0.5))
        for model in asked.model or MODELS:
            for system in systems:
                if model in system.models:
                    at_s = time.monotonic() - began_at
                    print(f"[{at_s:5.0f} s] repeat {repeat + 1}, {model}, {system.name}", flush=True)
                    _measure(system, model, seconds, results)
    by_name = {system.name: system for system in systems}
    pairs: defaultdict[tuple[Cell, Cell], list[tuple[Figures, Figures]]] = defaultdict(list)
    for pair in [] if asked.quick else pairs_to_measure(results):
        print(f"[{time.monotonic() - began_at:5.0f} s] in turns: {pair[0].name} and {pair[1].name}", flush=True)
        pairs[pair] += _in_turns(by_name, pair)
    took_s = time.monotonic() - began_at
    command = shlex.join(["./run.sh", "compare", *sys.argv[1:]])
    windows = f"medians of {repeats} windows" if repeats > 1 else "one window"
    here = Machine.here()
    today = dt.datetime.now().astimezone().date()
    head = (
        f"{today}, {here.cores} shared cores of {here.cpu_model}: `{command}`,"
        f" {windows} of {seconds:g} s, {took_s / 60:.0f} minutes."
    )
    _write(asked.out, head, results, pairs, notes, bare_us)


def _prepared(systems: list[System]) -> tuple[list[System], list[str]]:
    """Returns the systems that can be had, and a line for each of them and for each that cannot."""
    ready, notes = [], []
    for system in systems:
        try:
            system.prepare()
        except Missing as missing:
            notes.append(f"- **{system.name} is missing**: {missing}.")
            print(f"missing: {missing}", file=sys.stderr)
        else:
            ready.append(system)
            if system.about:
                notes.append(f"- {system.name}: {system.about}")
    return ready, notes


def _measure(system: System, model: str, seconds: float, results: dict[Cell, list[Figures]]) -> None:
    with system.serve(model) as serving:
        for driver in system.drivers:
            if model not in driver.models:
                continue
            for in_flight in driver.levels:
                figures = driver.drive(serving, model, in_flight, seconds)
                results[Cell(system.name, driver.name, model, in_flight)].append(figures)


def _in_turns(systems: dict[str, System], pair: tuple[Cell, Cell]) -> list[tuple[Figures, Figures]]:
    """Measures two cells one after the other, again and again."""
    drives = [
        next(one.drive for one in systems[cell.system].drivers if one.name == cell.driver and cell.model in one.models)
        for cell in pair
    ]
    ours, theirs = pair
    found: list[tuple[Figures, Figures]] = []
    with systems[ours.system].serve(ours.model) as mine, systems[theirs.system].serve(theirs.model) as other:
        for _ in range(TURNS):
            first = drives[0](mine, ours.model, ours.in_flight, TURN_S)
            found.append((first, drives[1](other, theirs.model, theirs.in_flight, TURN_S)))
    return found


def _write(
    folder: Path,
    head: str,
    results: dict[Cell, list[Figures]],
    pairs: dict[tuple[Cell, Cell], list[tuple[Figures, Figures]]],
    notes: list[str],
    bare_us: list[float],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"system": c.system, "driver": c.driver, "model": c.model, "in_flight": c.in_flight, "repeat": n, **f.to_json()}
        for c, repeats in results.items()
        for n, f in enumerate(repeats)
    ]
    turns = [
        {"cells": [ours.name, theirs.name], "runs": [[one.to_json() for one in run] for run in runs]}
        for (ours, theirs), runs in pairs.items()
    ]
    document = {
        "head": head,
        "python": platform.python_version(),
        "bare_loop_us": bare_us,
        "cells": lines,
        "in_turns": turns,
    }
    (folder / "compare.json").write_text(json.dumps(document, indent=1) + "\n")
    text = f"# zmqinfer beside its floors and peers\n\n{head}\n\n{table.render(results, pairs, notes, bare_us)}"
    (folder / "compare.md").write_text(text)
    for model in dict.fromkeys(cell.model for cell in results):
        plots.draw(results, model, folder / f"compare_{model}.png", head)
    print(text)


if __name__ == "__main__":
    main()
