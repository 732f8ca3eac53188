"""node_distribution.png: what each worker did, a panel for each scenario."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zmqinfer.load.canvas import BLUE, LABEL_PX, VERMILLION, WIDTH_PX, drawable, figure_of, name_of, plain, say, title
from zmqinfer.load.report import fitted, natural
from zmqinfer.load.results import LoadResult
from zmqinfer.load.summary import summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["node_figure"]

# A worker's bar with its gap, and how many of them are few; the longest name that is not cut.
_PITCH_PX, _NARROW_PITCH_PX, _ROOMY = 44, 26, 8
_NAME = 22


def node_figure(scenarios: Sequence[LoadResult]) -> Figure:
    """One panel a scenario, three in a row; the workers from top to bottom."""
    workers = sorted({name for s in scenarios for name in s.worker_requests}, key=natural)
    columns = min(3, len(scenarios))
    rows = -(-len(scenarios) // columns)
    pitch_px = _PITCH_PX if len(workers) <= _ROOMY else _NARROW_PITCH_PX
    figure = figure_of(90 + rows * (110 + pitch_px * (max(1, len(workers)) + 1)))
    names_px = LABEL_PX * max([len(fitted(name, _NAME)) for name in workers], default=0)
    panel_px = (WIDTH_PX - names_px - 40) / columns - 40
    title(figure, "requests per worker, by the gateway's counters", scenarios)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(scenarios) :]:
        axes.remove()
    for axes, scenario in zip(grid.flat, scenarios, strict=False):
        axes.set_title(name_of(scenario, scenarios, 16))
        _panel(axes, scenario, workers, panel_px)
    return figure


def _panel(axes: Axes, scenario: LoadResult, workers: Sequence[str], panel_px: float) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    summary = summarize(scenario)
    total = sum(scenario.worker_requests.values())
    if not total or summary.load_imbalance is None:
        say(axes, "no counts of\nrequests per worker", "x" if workers else "both")
        return
    counts = [scenario.worker_requests.get(name, 0) for name in workers]
    mean = total / len(scenario.worker_requests)
    most = max(counts)
    axes.barh(range(len(workers)), counts, height=0.7, color=BLUE)
    axes.axvline(mean, color=VERMILLION, linestyle="--")
    axes.set_ylim(len(workers) - 0.3, -0.7)
    axes.set_yticks(range(len(workers)), [drawable(fitted(name, _NAME)) for name in workers])
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, most * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    axes.set_xlabel(f"requests (dashed: the mean, {mean:,.0f})")
    axes.set_title(f"{axes.get_title('left')}\nimbalance {100 * summary.load_imbalance:,.1f} %")
    for i, (name, count) in enumerate(zip(workers, counts, strict=True)):
        if name in scenario.worker_requests:
            _count(axes, f"{count:,}\u2002{100 * count / total:.0f} %", i, count, panel_px * count / most)


def _count(axes: Axes, text: str, y: float, count: int, bar_px: float) -> None:
    """Writes into a bar, at its foot, or behind one that is too short for it."""
    is_inside = bar_px > LABEL_PX * len(text) + 12
    axes.annotate(
        text,
        (0 if is_inside else count, y),
        (5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color="white" if is_inside else "black",
        # Over the line of the mean.
        bbox={"facecolor": BLUE if is_inside else "white", "edgecolor": "none", "pad": 1.5},
    )
