"""What hedging does to the slowest calls, with and without cancelling the loser, in virtual time.

    .venv/bin/python -m bench.hedging

Four workers whose batches take 5 ms and 0.5 ms a row, one in a thousand of them 200 ms more, as a pause of a
collector or of a disk would. Calls come one by one, at random, at 40 % and at 95 % of the capacity. The
machines are those of production; only that a gateway does not cancel, or knows no budget, is made for this
comparison. Writes results/hedging.json and hedging.png.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from random import Random
from unittest.mock import patch

from bench.command import Command, whole, within
from zmqinfer.machine.client.call import CallOptions
from zmqinfer.machine.gateway.dispatches import Dispatches
from zmqinfer.policy.hedging import Hedging
from zmqinfer.scenario import Scenario, TimedModel
from zmqinfer.sim.world import World

WORKERS = 4
MAX_BATCH_SIZE = 32
CAPACITY_PER_S = WORKERS * MAX_BATCH_SIZE / (0.005 + 0.0005 * MAX_BATCH_SIZE)
STALL_EVERY, STALL_MS = 1_000, 200.0
LOADS = (0.4, 0.95)
VARIANTS = ("no hedging", "hedging", "loser not cancelled", "not cancelled, no budget")
TICKS_MS = (10, 20, 50, 100, 200)
COLORS = ("#9AA5B1", "#0B7285", "#F59F00", "#C92A2A")
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
WARM_UP_S = 2.0
DEADLINE_S = 30.0


class _Lavish(Hedging):
    """Knows no budget and no load."""

    def spend(self, calls: int) -> bool:
        return calls > 0


def latencies(variant: str, load: float, seconds: float, seed: int) -> tuple[list[float], float]:
    """Returns how long each call took, sorted, in seconds, and for which part of them a second worker was asked."""
    model = TimedModel(
        "m", a_ms=5.0, b_ms=0.5, max_batch_size=MAX_BATCH_SIZE, hedge=variant != "no hedging", stall_every=STALL_EVERY,
        stall_ms=STALL_MS,
    )  # fmt: skip
    world = World(Scenario(gateways=(1, 1), workers=(WORKERS, WORKERS), clients=(1, 1), models=(model,)), seed)
    gateway = world.gateways[0].machine
    if "no budget" in variant:
        gateway.routes.find("m", 1).hedging = _Lavish()
    random = Random(f"{seed} arrivals")
    client, history, timeline = world.clients[0], world.history, world.timeline
    options = CallOptions(DEADLINE_S)
    until = WARM_UP_S + seconds

    def arrive() -> None:
        client.call(model, options)
        if timeline.now < until:
            timeline.after(random.expovariate(load * CAPACITY_PER_S), arrive)

    timeline.at(0.5, arrive)
    # Without it the loser is never told that it lost.
    with patch.object(Dispatches, "take_back") if "not cancelled" in variant else nullcontext():
        while timeline.step(until + DEADLINE_S) and (timeline.now < until or history.open):
            pass
    counted = [call for call in history.calls if call.sent_at >= WARM_UP_S]
    return sorted(call.ended_at - call.sent_at for call in counted), gateway.scheduler.hedges.sent / len(history.calls)


def draw(results: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Draws the quantiles of each variant as bars, one picture for each load."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (load, variants) in zip(figure.subplots(1, len(results)), results.items(), strict=True):
        for number, (variant, figures) in enumerate(variants.items()):
            places = [place + 0.21 * (number - 1.5) for place in range(len(QUANTILES))]
            heights = [figures[name] for name in QUANTILES]
            bars = axes.bar(places, heights, 0.2, color=COLORS[number], label=variant)
            axes.bar_label(bars, [f"{height:,.0f}" for height in heights], padding=2, fontsize=9)
        axes.set_yscale("log")
        axes.set_yticks(TICKS_MS, list(map(str, TICKS_MS)))
        axes.minorticks_off()
        axes.set_ylim(TICKS_MS[0], 400)
        axes.set_xticks(range(len(QUANTILES)), list(QUANTILES))
        axes.set_title(f"{load} of capacity", loc="left")
        axes.set_ylabel("ms a call, logarithmic")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.axes[0].legend(frameon=False)
    figure.suptitle("Batches that stall: one in a thousand takes 200 ms more", x=0.01, ha="left")
    figure.savefig(path)


def main() -> None:
    """Runs all variants at all loads and writes what came of it."""
    command = Command("python -m bench.hedging", __doc__)
    command.add_argument("--seconds", type=within, default=20.0, help="virtual time of each run")
    command.add_argument("--seed", type=whole, default=1)
    command.add_argument("--out", type=Path, default=Path("results"))
    given = command.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for load in LOADS:
        for variant in VARIANTS:
            times, hedged = latencies(variant, load, given.seconds, given.seed)
            figures = {name: times[int(part * len(times))] * 1e3 for name, part in QUANTILES.items()}
            results.setdefault(f"{load:.0%}", {})[variant] = {**figures, "hedged": hedged, "calls": len(times)}
            shown = ", ".join(f"{name} {value:,.1f} ms" for name, value in figures.items())
            print(f"{load:4.0%} {variant:<28}{shown}, hedged {hedged:.1%} of {len(times):,}", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "hedging.json").write_text(json.dumps(results, indent=2) + "\n")
    draw(results, given.out / "hedging.png")


if __name__ == "__main__":
    main()
