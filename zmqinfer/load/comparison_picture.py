"""performance_comparison.png: loads side by side, and batching on against off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from zmqinfer.load import report
from zmqinfer.load.canvas import (
    BLUE,
    GREY,
    HEIGHT_PX,
    ORANGE,
    VERMILLION,
    drawable,
    figure_of,
    label,
    plain,
    time_axis,
    title,
)
from zmqinfer.load.report import fitted, load_of, short_time
from zmqinfer.load.results import BenchResult, LoadResult
from zmqinfer.load.summary import median_latencies, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure, SubFigure

__all__ = ["comparison_figure"]

# So many scenarios stand side by side without narrowing.
_ROOMY = 4


def comparison_figure(result: BenchResult) -> Figure:
    """Loads side by side above, batching on against off below, as far as they were measured."""
    scenarios, pairs = report.side_by_side(result), report.batching_pairs(result)[:3]
    figure = figure_of(HEIGHT_PX + (200 if scenarios and pairs else 0))
    parts = figure.subfigures(2 if scenarios and pairs else 1, 1, squeeze=False)[:, 0]
    if scenarios:
        _loads_part(parts[0], scenarios)
    if pairs:
        _batching_part(parts[-1], pairs)
    return figure


def _loads_part(part: Figure | SubFigure, scenarios: Sequence[LoadResult]) -> None:
    title(part, "loads side by side", scenarios)
    rates, times = part.subplots(1, 2)
    _rate_bars(rates, scenarios, [BLUE] * len(scenarios))
    rates.set_title("Throughput of right answers; the whisker spans the rounds")
    _time_dots(times, scenarios)
    times.set_title("Latency in the median round: p50 (dot), p99 (diamond)")
    width, size = (24, 10) if len(scenarios) <= _ROOMY else (max(8, 66 // len(scenarios)), 8)
    has_several = len({s.model for s in scenarios}) > 1
    names = [
        "\n".join(
            [
                *([drawable(fitted(s.model, width))] if has_several else []),
                drawable(fitted(s.name, width)),
                _broken(load_of(s.load), scenarios),
            ]
        )
        for s in scenarios
    ]
    lost = [_broken(_lost(s), scenarios) for s in scenarios]
    for axes, texts in ((rates, [name + one for name, one in zip(names, lost, strict=True)]), (times, names)):
        axes.set_xlim(-0.7, len(scenarios) - 0.3)
        axes.set_xticks(range(len(scenarios)), texts, fontsize=size)


def _batching_part(part: Figure | SubFigure, pairs: Sequence[tuple[LoadResult, LoadResult]]) -> None:
    title(part, "batching on against off", [on for on, _ in pairs])
    for axes, (on, off) in zip(part.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        bars = _rate_bars(axes, (on, off), (BLUE, ORANGE))
        bars[1].set_hatch("//")
        axes.set_title(f"{drawable(fitted(on.model, 30))}\n{report.batching_ratio(on, off)}")
        latencies = (median_latencies(on), median_latencies(off))
        times = [f"p50 {short_time(x.p50_ms)}\np99 {short_time(x.p99_ms)}" for x in latencies]
        axes.set_xlim(-0.7, 1.7)
        axes.set_xticks((0, 1), [f"batching on\n{times[0]}{_lost(on)}", f"batching off\n{times[1]}{_lost(off)}"])


def _rate_bars(axes: Axes, scenarios: Sequence[LoadResult], colours: Sequence[str]) -> BarContainer:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    medians = [summarize(s).throughput_per_s for s in scenarios]
    bars = axes.bar(range(len(scenarios)), medians, 0.6, color=list(colours))
    highest = 0.0
    for i, (scenario, median) in enumerate(zip(scenarios, medians, strict=True)):
        rates = [r.throughput_per_s for r in scenario.rounds]
        highest = max(highest, *rates, 0.0)
        if min(rates) < max(rates):
            axes.plot([i, i], [min(rates), max(rates)], "_-", color="black", linewidth=1, markersize=8)
        # At the foot: above, the number would seem to be that of the whisker's end.
        foot = label(axes, f"{median:.3g}" if median < 100 else f"{median:,.0f}", i, 0, 4)
        foot.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    axes.set_ylim(0, highest * 1.05 or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.tick_params(axis="y", left=highest > 0, labelleft=highest > 0)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("throughput (right answers/s)")
    return bars


def _time_dots(axes: Axes, scenarios: Sequence[LoadResult]) -> None:
    """p50 as a dot labelled below, p99 as a diamond labelled above, so that the two never meet."""
    axes.set_yscale("log")
    shown = [_time_dot(axes, i, median_latencies(s).percentiles) for i, s in enumerate(scenarios)]
    heights = [height for of_scenario in shown for height in of_scenario]
    low, high = min(heights, default=1.0) / 3, max(heights, default=1.0) * 3
    axes.set_ylim(low, high)
    time_axis(axes.yaxis, low, high)
    axes.grid(visible=False, axis="x" if heights else "both")
    axes.tick_params(axis="y", left=bool(heights), labelleft=bool(heights))


def _time_dot(axes: Axes, x: float, percentiles: Mapping[str, float | None]) -> list[float]:
    """Draws what there is of one scenario, and says at which heights."""
    # A logarithmic axis has no place for 0.
    known = {name: max(figure, 0.001) for name, figure in percentiles.items() if figure is not None}
    heights = [known[name] for name in ("p50", "p99") if name in known]
    axes.plot([x] * len(heights), heights, color=GREY, linewidth=1)
    if "p99" in known:
        axes.plot([x], [known["p99"]], "D", color=VERMILLION)
        label(axes, short_time(percentiles["p99"]), x, known["p99"], 8)
    if "p50" in known:
        axes.plot([x], [known["p50"]], "o", color=BLUE)
        label(axes, short_time(percentiles["p50"]), x, known["p50"], -8)
    else:
        axes.text(x, 0.5, "too few\nright answers", transform=axes.get_xaxis_transform(), ha="center")
    return heights


def _lost(scenario: LoadResult) -> str:
    """A line for the requests that failed, if any did."""
    lost = summarize(scenario).failed + summarize(scenario).wrong_answers
    return f"\n{lost:,} failed" if lost else ""


def _broken(words: str, scenarios: Sequence[LoadResult]) -> str:
    """The words in two lines where many scenarios stand side by side."""
    return words if len(scenarios) <= _ROOMY else words.replace(" ", "\n", 1)
