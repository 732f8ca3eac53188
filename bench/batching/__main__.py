"""Judges the policies in virtual time with measured curves, runs them live, and draws both.

    .venv/bin/python -m bench.batching             about four minutes
    .venv/bin/python -m bench.batching --virtual   the judgement alone, half a minute

Writes results/batching.json, batching_dense.png and batching_sorting.png.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

from bench.batching import live, virtual
from bench.batching.curves import MODELS, MeasuredCurve, measured
from bench.command import Command, within
from zmqinfer.load.results import Machine

LOADS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.2)
LIVE_LOADS = (0.05, 0.1, 0.25, 0.5, 0.7, 0.85, 0.95, 1.2)
JUDGED_UP_TO = 0.95
_COLOURS = {"adaptive": "#0072B2", "timed": "#E69F00", "at once": "#999999"}


def judge(curve: MeasuredCurve) -> list[dict[str, Any]]:
    """Returns a row for each load: the outcomes, and adaptive's p99 and throughput over the better of the others."""
    rows = []
    for load in LOADS:
        found = {policy: virtual.simulated(curve, load, policy) for policy in virtual.POLICIES}
        others = [outcome for policy, outcome in found.items() if policy != "adaptive"]
        mine = found["adaptive"]
        rows.append({
            "load": load,
            "p99_ratio": mine.p99_s / min(outcome.p99_s for outcome in others),
            "throughput_ratio": mine.rows_per_s / max(outcome.rows_per_s for outcome in others),
            "outcomes": {policy: dataclasses.asdict(outcome) for policy, outcome in found.items()},
        })  # fmt: skip
    return rows


def run_live(seconds: float) -> dict[str, list[dict[str, Any]]]:
    """Returns for each model a row for each load and policy."""
    rows: dict[str, list[dict[str, Any]]] = {model: [] for model in MODELS}
    with live.cluster() as address:
        for model in MODELS:
            full = live.capacity(address, model)
            print(f"{model}: live capacity {full:,.0f} req/s", flush=True)
            for load in LIVE_LOADS:
                for policy in live.POLICIES:
                    done = live.scenario(address, model, policy, load * full, seconds)
                    one = done.rounds[0]
                    rows[model].append({
                        "load": load,
                        "policy": policy,
                        "offered_per_s": load * full,
                        "answered_per_s": one.latencies.count / one.wall_s,
                        "p50_ms": one.latencies.p50_ms,
                        "p99_ms": one.latencies.p99_ms,
                        "mean_batch": done.mean_batch_size,
                        "bad": one.sent - one.latencies.count,
                    })  # fmt: skip
    return rows


def draw(
    model: str, curve: MeasuredCurve, judged: list[dict[str, Any]], ran: list[dict[str, Any]], path: Path, caption: str
) -> None:
    """Draws latency and throughput over the load, in virtual time on the left and live on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    percent = [row["load"] * 100 for row in judged]
    for policy in virtual.POLICIES:
        outcomes = [row["outcomes"][policy] for row in judged]
        _lines(axes, 0, policy, percent, [o["p50_s"] * 1e3 for o in outcomes], [o["p99_s"] * 1e3 for o in outcomes],
               [o["rows_per_s"] / curve.capacity for o in outcomes])  # fmt: skip
    for policy in live.POLICIES if ran else ():
        mine = [row for row in ran if row["policy"] == policy]
        full = mine[0]["offered_per_s"] / mine[0]["load"]
        x = [row["load"] * 100 for row in mine]
        rates = [row["answered_per_s"] / full for row in mine]
        tails = [row["p99_ms"] or float("nan") for row in mine]
        _lines(axes, 1, policy, x, [row["p50_ms"] for row in mine], tails, rates)
    axes[0][0].set_title("virtual time, the measured curve for an engine", loc="left", fontsize=11)
    axes[0][1].set_title("live: client, gateway and worker on this machine", loc="left", fontsize=11)
    for row, name in enumerate(("latency in ms (log scale)", "throughput, as part of capacity")):
        axes[row][0].set_ylabel(name)
    axes[0][0].set_yscale("log")
    axes[0][0].yaxis.set_major_formatter("{x:g}")
    for line in axes:
        for one in line:
            one.grid(color="#E5E5E5")
            for side in ("top", "right"):
                one.spines[side].set_visible(False)
    for one in axes[1]:
        one.set_xlabel("load, % of capacity")
    axes[0][0].legend(frameon=False, ncols=2)
    figure.suptitle(
        f"{model}: full batches bring {curve.gain:.1f} times the rows a second of single ones", x=0.01, ha="left"
    )
    figure.supxlabel(caption, fontsize=9)
    figure.savefig(path)


def _lines(
    axes: Any, column: int, policy: str, x: list[float], p50: list[float], p99: list[float], rate: list[float]
) -> None:
    colour = _COLOURS[policy]
    axes[0][column].plot(x, p99, "o-", color=colour, label=f"{policy}, p99", markersize=4)
    axes[0][column].plot(x, p50, "--", color=colour, label=f"{policy}, p50")
    axes[1][column].plot(x, rate, "o-", color=colour, label=policy, markersize=4)


def main() -> None:
    """Measures, judges, prints and draws."""
    options = Command("python -m bench.batching", __doc__)
    options.add_argument("--virtual", action="store_true", help="only what runs in virtual time")
    options.add_argument("--seconds", type=within, default=2.5, help="of each live load (%(default)s)")
    options.add_argument("--out", type=Path, default=Path("results"), help="folder (%(default)s)")
    asked = options.parse_args()
    curves = {model: measured(model) for model in MODELS}
    judged = {model: judge(curve) for model, curve in curves.items()}
    for model, curve in curves.items():
        sizes = ", ".join(f"{size}: {taken * 1e3:.2f} ms" for size, taken in curve.seconds.items())
        print(f"{model}: {sizes}; gain {curve.gain:.1f}")
        for row in judged[model]:
            print(
                f"  load {row['load']:.0%}: p99 {row['p99_ratio']:.3f} and throughput {row['throughput_ratio']:.3f}"
                " of the better of timed and at once"
            )
    worst = [row for rows in judged.values() for row in rows if row["load"] <= JUDGED_UP_TO]
    print(f"worst up to {JUDGED_UP_TO:.0%}: p99 {max(row['p99_ratio'] for row in worst):.3f},", end=" ")
    print(f"throughput {min(row['throughput_ratio'] for row in worst):.3f}")
    ran = {} if asked.virtual else run_live(asked.seconds)
    here = Machine.here()
    caption = f"{dt.datetime.now().astimezone().date()}, {here.cores} shared cores of {here.cpu_model}; bench.batching"
    asked.out.mkdir(parents=True, exist_ok=True)
    seconds = {model: curve.seconds for model, curve in curves.items()}
    document = {"caption": caption, "curves_s": seconds, "judged": judged, "live": ran}
    (asked.out / "batching.json").write_text(json.dumps(document, indent=1) + "\n")
    for model, curve in curves.items():
        draw(model, curve, judged[model], ran.get(model, []), asked.out / f"batching_{model}.png", caption)


if __name__ == "__main__":
    main()
