"""What is printed, written and drawn."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

from trials.soak import verdict
from trials.soak.faults import KINDS
from trials.soak.trial import Soak
from trials.soak.verdict import Fault, Series

__all__ = ["draw", "tell", "write"]


def tell(soak: Soak, broken: list[str]) -> None:
    """Prints the tables and the verdict."""
    print(f"\n{'process':<12}{'id':>8}{'lived s':>9}{'MB first':>10}{'MB last':>9}{'MB/10 min':>11}"
          f"{'descriptors':>13}{'threads':>9}  judged")  # fmt: skip
    for one in soak.series:
        first, last = one.samples[0], one.samples[-1]
        print(
            f"{one.name:<12}{one.pid:>8}{one.lived_s:>9.1f}{first.memory_mb:>10.1f}{last.memory_mb:>9.1f}"
            f"{verdict.slope_mb(one.samples):>11.2f}{f'{first.descriptors} to {last.descriptors}':>13}"
            f"{f'{first.threads} to {last.threads}':>9}  {'yes' if one.is_judged else 'no'}"
        )
    if not any(one.is_judged for one in soak.series):
        print(f"no process lived for {verdict.JUDGED_FROM_S:g} s: slopes and descriptors are not judged")
    print("\nfaults")
    counts = Counter(fault.kind for fault in soak.faults)
    for kind in KINDS:
        print(f"{counts[kind]:>5} {kind}")
    load = soak.load
    print(
        f"\n{load.calls:,} calls, {load.failed:,} failed, {load.wrong:,} wrong;"
        f" the gateways' books were looked at {soak.books:,} times"
    )
    for example in load.examples:
        print(f"  {example}")
    for sentence in broken:
        print(f"did not hold: {sentence}")
    print("everything held" if not broken else f"{len(broken)} things did not hold")


def write(soak: Soak, broken: list[str], folder: Path) -> None:
    """Writes soak.json and soak.png."""
    folder.mkdir(parents=True, exist_ok=True)
    load = soak.load
    report = {
        "minutes": soak.form.minutes,
        "seed": soak.form.seed,
        "capacity_per_s": round(soak.capacity),
        "rate_per_s": round(soak.rate),
        "calls": load.calls,
        "failed": load.failed,
        "wrong": load.wrong,
        "examples": load.examples,
        "books": soak.books,
        "did_not_hold": broken,
        "faults": [dataclasses.asdict(fault) for fault in soak.faults],
        "processes": [
            {
                "name": one.name,
                "pid": one.pid,
                "lived_s": round(one.lived_s, 1),
                "slope_mb_per_10_min": round(verdict.slope_mb(one.samples), 3),
                "more_descriptors": verdict.more_descriptors(one.samples),
                "is_judged": one.is_judged,
                "samples": [dataclasses.asdict(sample) for sample in one.samples],
            }
            for one in soak.series
        ],
    }
    (folder / "soak.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(soak.series, soak.faults, folder / "soak.png")


def draw(all_series: list[Series], faults: list[Fault], path: Path) -> None:
    """Draws memory over time, a panel for each role, and below when which fault happened."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = ("#0072B2", "#E69F00", "#009E73")
    figure = Figure(figsize=(12, 7), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(4, 1, sharex=True, height_ratios=[1, 1, 1, 0.75])
    roles = {"client": "client", "gateway": "gateways", "worker": "workers"}
    for axes, (role, title) in zip(panels, roles.items(), strict=False):
        names = sorted({one.name for one in all_series if one.role == role})
        for one in (one for one in all_series if one.role == role):
            minutes = [sample.at_s / 60 for sample in one.samples]
            label = "" if axes.get_legend_handles_labels()[1].count(one.name) else one.name
            axes.plot(
                minutes, [sample.memory_mb for sample in one.samples], ".-", markersize=3, linewidth=1.2,
                color=colours[names.index(one.name) % len(colours)], label=label or "_",
            )  # fmt: skip
        for fault in faults:
            axes.axvline(fault.at_s / 60, ymax=0.05, color="#595959", linewidth=0.8)
        axes.set_ylabel("resident\nmemory (MB)")
        axes.set_title(title, loc="left", fontsize=10)
        axes.margins(y=0.15)
        if len(names) > 1:
            axes.legend(frameon=False, ncols=len(names), loc="lower right", bbox_to_anchor=(1, 0.97), fontsize=9)
    for row, kind in enumerate(KINDS):
        times = [fault.at_s / 60 for fault in faults if fault.kind == kind]
        panels[-1].plot(times, [row] * len(times), "|", color="#D55E00", markersize=9, markeredgewidth=1.4)
    panels[-1].set_yticks(range(len(KINDS)), KINDS, fontsize=8)
    panels[-1].set_ylim(len(KINDS) - 0.4, -0.6)
    panels[-1].set_title("faults", loc="left", fontsize=10)
    panels[-1].set_xlabel("time under load (minutes)")
    for axes in panels:
        axes.grid(axis="x", color="#E5E5E5")
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(path)
