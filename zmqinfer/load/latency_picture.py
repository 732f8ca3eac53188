"""latency_distribution.png: how long the right answers took, a panel for each scenario."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zmqinfer.load.canvas import (
    BLUE,
    GREY,
    HEIGHT_PX,
    LABEL_PX,
    LINE_PX,
    VERMILLION,
    WIDTH_PX,
    figure_of,
    name_of,
    say,
    time_axis,
    title,
)
from zmqinfer.load.report import short_time
from zmqinfer.load.results import LoadResult
from zmqinfer.load.statistics import BUCKETS_PER_DECADE, Latencies
from zmqinfer.load.summary import median_latencies, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["latency_figure"]

# Bars in the whole width of a panel.
_BARS = 90


def latency_figure(scenarios: Sequence[LoadResult]) -> Figure:
    """One panel a scenario, all on one axis of time."""
    height_px = max(HEIGHT_PX, 120 + 200 * len(scenarios))
    figure = figure_of(height_px)
    title(figure, "latency of the right answers, in each scenario's median round", scenarios)
    panels = figure.subplots(len(scenarios), 1, sharex=True, squeeze=False)[:, 0]
    latencies = [median_latencies(s) for s in scenarios]
    low, high = _limits(latencies)
    panels[-1].set_xscale("log")
    panels[-1].set_xlim(low, high)
    time_axis(panels[-1].xaxis, low, high)
    for axes, scenario, of_round in zip(panels, scenarios, latencies, strict=True):
        axes.set_title(f"{name_of(scenario, scenarios)}: {_outcome(scenario)}")
        if of_round.count:
            _panel(axes, of_round, low, high, (height_px - 120) / len(scenarios) - 40)
        else:
            say(axes, "no right answer, so no latency", "y")
    return figure


def _limits(latencies: Sequence[Latencies]) -> tuple[float, float]:
    """Ends of the common axis: 4 % of air to the left, to the right room for the last label."""
    edges = [of_round.histogram.edges_ms() for of_round in latencies if of_round.count]
    low = min((float(e[0]) for e in edges), default=0.1)
    high = max((float(e[-1]) for e in edges), default=1000.0)
    if high < 1.5 * low:
        low, high = low / 1.25, high * 1.25
    span = high / low
    return low / span**0.04, high * span**0.17


def _panel(axes: Axes, latencies: Latencies, low: float, high: float, height_px: float) -> None:
    # So many buckets in one bar that `_BARS` of them fill the axis.
    step = round(BUCKETS_PER_DECADE * math.log10(high / low) / _BARS)
    edges, counts = latencies.histogram.merged(max(1, step))
    shares = 100 * counts / latencies.count
    axes.stairs(shares, edges, fill=True, color=BLUE)
    axes.set_ylabel("share of\nanswers (%)")
    axes.grid(visible=False, axis="x")
    figures = {**latencies.percentiles, "max": latencies.max_ms}
    marks = [(name, figure) for name, figure in figures.items() if figure is not None]
    texts = [f"{label} {short_time(figure)}" for label, figure in marks]
    at_ms = [max(figure, low) for _, figure in marks]
    places = [math.log(x / low) / math.log(high / low) for x in at_ms]
    levels = _staircase(places, [(LABEL_PX * len(text) + 14) / (WIDTH_PX - 110) for text in texts])
    stair = LINE_PX / height_px
    bars_top = 1 - stair * (max(levels) + 1) - 0.04
    axes.set_ylim(0, float(shares.max()) / bars_top)
    at = axes.get_xaxis_transform()
    for text, x, level in zip(texts, at_ms, levels, strict=True):
        y = bars_top + 0.02 + stair * level
        colour, dashes = (GREY, ":") if text.startswith("max") else (VERMILLION, "-")
        # All of one height, for it says nothing; a hair leads on to the label.
        axes.plot([x, x], [0, bars_top + 0.02], dashes, color=colour, transform=at)
        axes.plot([x, x], [bars_top + 0.02, y + 0.8 * stair], "-", color=GREY, linewidth=0.6, transform=at)
        axes.annotate(text, (x, y), (4, 1), xycoords=at, textcoords="offset points")


def _staircase(places: Sequence[float], widths: Sequence[float]) -> list[int]:
    """Levels at which labels, each starting at its place and given left to right, cross nothing.

    A label that would run into one to its right, or its line, stands a step above it.
    """
    levels = [0] * len(places)
    for i in reversed(range(len(places))):
        in_the_way = (levels[j] for j in range(i + 1, len(places)) if places[j] < places[i] + widths[i])
        levels[i] = max(in_the_way, default=-1) + 1
    return levels


def _outcome(scenario: LoadResult) -> str:
    summary = summarize(scenario)
    said = f"{scenario.rounds[summary.median_round].successes:,} right answers"
    lost = summary.failed + summary.wrong_answers
    return f"{said}, {lost:,} requests failed over all rounds" if lost else f"{said}, none failed"
