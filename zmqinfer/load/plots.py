"""The pictures of a benchmark, drawn from its results alone.

Colours are Okabe and Ito's, which colour-blind people can tell apart; nothing is said by
colour alone. Text stands where nothing else can: percentile labels on a staircase above
the bars, counts in a column beside them. matplotlib is imported inside, its pyplot never.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zmqinfer.load import report
from zmqinfer.load.report import fitted, load_of, short_time
from zmqinfer.load.results import BenchResult, Scenario, write_atomically
from zmqinfer.load.statistics import BUCKETS_PER_DECADE, Latencies, median_latencies, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure, SubFigure

__all__ = ["COMPARISON_FILE", "LATENCY_FILE", "NODE_FILE", "draw", "write_pictures"]

LATENCY_FILE = "latency_distribution.png"
NODE_FILE = "node_distribution.png"
COMPARISON_FILE = "performance_comparison.png"

_WIDTH_PX, _HEIGHT_PX, _DPI = 1200, 700, 100
_BLUE, _ORANGE, _VERMILLION, _GREY = "#0072B2", "#E69F00", "#D55E00", "#595959"
_STYLE = {
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": "#E5E5E5",
    "hatch.color": "white",
    "text.parse_math": False,
    "text.usetex": False,
}
_BARS = 90
_ROOMY = 4
# How wide a character and how high a line of a label is; wide enough for the widest.
_LABEL_PX, _LINE_PX = 7.2, 17


def write_pictures(result: BenchResult, directory: Path) -> tuple[Path, ...]:
    """Writes the three pictures into `directory`; each all or nothing.

    Raises:
        ConfigError: a file cannot be written.
    """
    paths = []
    with _style():
        for name, figure in draw(result).items():
            content = BytesIO()
            figure.savefig(content, format="png", dpi=_DPI)
            paths.append(directory / name)
            write_atomically(paths[-1], content.getvalue())
    return tuple(paths)


def draw(result: BenchResult) -> dict[str, Figure]:
    """The pictures by the names of their files."""
    with _style():
        return {
            LATENCY_FILE: _latency_figure(result.scenarios),
            NODE_FILE: _node_figure(result.scenarios),
            COMPARISON_FILE: _comparison_figure(result),
        }


@contextmanager
def _style() -> Iterator[None]:
    """Our style in place of what the user's matplotlibrc says."""
    from matplotlib import style

    with style.context(["default", _STYLE]):
        yield


def _figure(height_px: int) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_PX / _DPI, height_px / _DPI), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _latency_figure(scenarios: Sequence[Scenario]) -> Figure:
    """One panel a scenario, all on one axis of time."""
    height_px = max(_HEIGHT_PX, 120 + 200 * len(scenarios))
    figure = _figure(height_px)
    figure.suptitle("Latency of the right answers, in each scenario's median round")
    panels = figure.subplots(len(scenarios), 1, sharex=True, squeeze=False)[:, 0]
    latencies = [median_latencies(s) for s in scenarios]
    low, high = _limits(latencies)
    panels[-1].set_xscale("log")
    panels[-1].set_xlim(low, high)
    _time_axis(panels[-1].xaxis, low, high)
    for axes, scenario, of_round in zip(panels, scenarios, latencies, strict=True):
        axes.set_title(f"{_name(scenario)}: {_outcome(scenario)}")
        if of_round.count:
            _latency_panel(axes, of_round, low, high, (height_px - 120) / len(scenarios) - 40)
        else:
            _say(axes, "no right answer, so no latency", "y")
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


def _time_axis(axis: Axis, low: float, high: float) -> None:
    """Scales a logarithmic axis of milliseconds from `low` to `high`, with few and plain numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1.0,) if high / low > 3000 else (1.0, 2.0, 5.0)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    if high / low < 8:
        ticks = [float(tick) for tick in MaxNLocator(7).tick_values(low, high)]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_label_text("latency (ms, logarithmic)")


def _latency_panel(axes: Axes, latencies: Latencies, low: float, high: float, height_px: float) -> None:
    # So many buckets in one bar that `_BARS` of them fill the axis.
    step = round(BUCKETS_PER_DECADE * math.log10(high / low) / _BARS)
    edges, counts = latencies.histogram.merged(max(1, step))
    shares = 100 * counts / latencies.count
    axes.stairs(shares, edges, fill=True, color=_BLUE)
    axes.set_ylabel("share of\nanswers (%)")
    axes.grid(visible=False, axis="x")
    figures = {**latencies.percentiles, "max": latencies.max_ms}
    marks = [(name, figure) for name, figure in figures.items() if figure is not None]
    texts = [f"{label} {short_time(figure)}" for label, figure in marks]
    at_ms = [max(figure, low) for _, figure in marks]
    places = [math.log(x / low) / math.log(high / low) for x in at_ms]
    levels = _staircase(places, [(_LABEL_PX * len(text) + 14) / (_WIDTH_PX - 110) for text in texts])
    stair = _LINE_PX / height_px
    bars_top = 1 - stair * (max(levels) + 1) - 0.04
    axes.set_ylim(0, float(shares.max()) / bars_top)
    at = axes.get_xaxis_transform()
    for text, x, level in zip(texts, at_ms, levels, strict=True):
        y = bars_top + 0.02 + stair * level
        colour, dashes = (_GREY, ":") if text.startswith("max") else (_VERMILLION, "-")
        axes.plot([x, x], [0, y + 0.8 * stair], dashes, color=colour, transform=at)
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


def _node_figure(scenarios: Sequence[Scenario]) -> Figure:
    """One panel a scenario, three in a row; the workers from top to bottom."""
    workers = sorted({name for s in scenarios for name in s.worker_requests}, key=report.natural)
    columns = min(3, len(scenarios))
    rows = -(-len(scenarios) // columns)
    figure = _figure(max(_HEIGHT_PX, 60 + rows * (110 + 24 * len(workers))))
    figure.suptitle("Requests per worker, by the gateway's counters")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(scenarios) :]:
        axes.remove()
    for axes, scenario in zip(grid.flat, scenarios, strict=False):
        _node_panel(axes, scenario, workers)
    return figure


def _node_panel(axes: Axes, scenario: Scenario, workers: Sequence[str]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    summary = summarize(scenario)
    total = sum(scenario.worker_requests.values())
    if not total or summary.load_imbalance is None:
        axes.set_title(_name(scenario, 16))
        _say(axes, "no counts of\nrequests per worker", "x" if workers else "both")
        return
    counts = [scenario.worker_requests.get(name, 0) for name in workers]
    mean = total / len(scenario.worker_requests)
    axes.barh(range(len(workers)), counts, height=0.7, color=_BLUE)
    axes.axvline(mean, color=_VERMILLION, linestyle="--")
    air = max(0.6, (5 - len(workers)) / 2)
    axes.set_ylim(len(workers) - 1 + air, -air)
    axes.set_yticks(range(len(workers)), [_drawable(fitted(name, 22)) for name in workers])
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, max(counts) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_xlabel(f"requests (dashed: the mean, {mean:,.0f})")
    axes.set_title(f"{_name(scenario, 16)}\nimbalance {100 * summary.load_imbalance:,.1f} %")
    for i, (name, count) in enumerate(zip(workers, counts, strict=True)):
        if name not in scenario.worker_requests:
            continue
        text = f"{count:,}\u2002{100 * count / total:.0f} %"
        axes.text(1.02, i, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9)


def _comparison_figure(result: BenchResult) -> Figure:
    """Loads side by side above, batching on against off below, as far as they were measured."""
    scenarios, pairs = report.side_by_side(result), report.batching_pairs(result)[:3]
    figure = _figure(_HEIGHT_PX + (200 if scenarios and pairs else 0))
    parts = figure.subfigures(2 if scenarios and pairs else 1, 1, squeeze=False)[:, 0]
    if scenarios:
        _loads_part(parts[0], scenarios)
    if pairs:
        _batching_part(parts[-1], pairs)
    return figure


def _loads_part(part: Figure | SubFigure, scenarios: Sequence[Scenario]) -> None:
    part.suptitle("Loads side by side")
    rates, times = part.subplots(1, 2)
    _rate_bars(rates, scenarios, [_BLUE] * len(scenarios))
    rates.set_title("Throughput of right answers; the whisker spans the rounds")
    _time_dots(times, scenarios)
    times.set_title("Latency in the median round: p50 (dot), p99 (diamond)")
    width, size = (24, 10) if len(scenarios) <= _ROOMY else (max(8, 66 // len(scenarios)), 8)
    names = [f"{_drawable(fitted(s.name, width))}\n{_broken(load_of(s.load), scenarios)}" for s in scenarios]
    for axes in (rates, times):
        axes.set_xlim(-0.7, len(scenarios) - 0.3)
        axes.set_xticks(range(len(scenarios)), names, fontsize=size)


def _batching_part(part: Figure | SubFigure, pairs: Sequence[tuple[Scenario, Scenario]]) -> None:
    part.suptitle("Batching on against off")
    for axes, (on, off) in zip(part.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        bars = _rate_bars(axes, (on, off), (_BLUE, _ORANGE))
        bars[1].set_hatch("//")
        axes.set_title(f"{_drawable(fitted(on.model, 30))}\n{report.batching_ratio(on, off)}")
        latencies = (median_latencies(on), median_latencies(off))
        times = [f"p50 {short_time(x.p50_ms)}\np99 {short_time(x.p99_ms)}" for x in latencies]
        axes.set_xlim(-0.7, 1.7)
        axes.set_xticks((0, 1), [f"batching on\n{times[0]}", f"batching off\n{times[1]}"])


def _rate_bars(axes: Axes, scenarios: Sequence[Scenario], colours: Sequence[str]) -> BarContainer:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    medians = [summarize(s).throughput_per_s for s in scenarios]
    bars = axes.bar(range(len(scenarios)), medians, 0.6, color=list(colours))
    highest = 0.0
    for i, (scenario, median) in enumerate(zip(scenarios, medians, strict=True)):
        rates = [r.throughput_per_s for r in scenario.rounds]
        highest = max(highest, *rates, 0.0)
        if min(rates) < max(rates):
            axes.plot([i, i], [min(rates), max(rates)], "_-", color="black", linewidth=1, markersize=8)
        lost = summarize(scenario).failed + summarize(scenario).wrong_answers
        rate = f"{median:.3g}" if median < 100 else f"{median:,.0f}"
        failed = _broken(f"{lost:,} failed", scenarios)
        _label(axes, f"{rate}\n{failed}" if lost else rate, i, max(rates), 4)
    axes.set_ylim(0, highest * 1.22 or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.tick_params(axis="y", left=highest > 0, labelleft=highest > 0)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("throughput (right answers/s)")
    return bars


def _time_dots(axes: Axes, scenarios: Sequence[Scenario]) -> None:
    """p50 as a dot labelled below, p99 as a diamond labelled above, so that the two never meet."""
    axes.set_yscale("log")
    shown = [_time_dot(axes, i, median_latencies(s).percentiles) for i, s in enumerate(scenarios)]
    heights = [height for of_scenario in shown for height in of_scenario]
    low, high = min(heights, default=1.0) / 3, max(heights, default=1.0) * 3
    axes.set_ylim(low, high)
    _time_axis(axes.yaxis, low, high)
    axes.grid(visible=False, axis="x" if heights else "both")
    axes.tick_params(axis="y", left=bool(heights), labelleft=bool(heights))


def _time_dot(axes: Axes, x: float, percentiles: Mapping[str, float | None]) -> list[float]:
    """Draws what there is of one scenario, and says at which heights."""
    # A logarithmic axis has no place for 0.
    known = {name: max(figure, 0.001) for name, figure in percentiles.items() if figure is not None}
    heights = [known[name] for name in ("p50", "p99") if name in known]
    axes.plot([x] * len(heights), heights, color=_GREY, linewidth=1)
    if "p99" in known:
        axes.plot([x], [known["p99"]], "D", color=_VERMILLION)
        _label(axes, short_time(percentiles["p99"]), x, known["p99"], 8)
    if "p50" in known:
        axes.plot([x], [known["p50"]], "o", color=_BLUE)
        _label(axes, short_time(percentiles["p50"]), x, known["p50"], -8)
    else:
        axes.text(x, 0.5, "too few\nright answers", transform=axes.get_xaxis_transform(), ha="center")
    return heights


def _broken(words: str, scenarios: Sequence[Scenario]) -> str:
    """The words in two lines where many scenarios stand side by side."""
    return words if len(scenarios) <= _ROOMY else words.replace(" ", "\n", 1)


def _label(axes: Axes, text: str, x: float, y: float, away: float) -> None:
    """Centres the text above the point, or below it if `away` (in points) is negative."""
    side = "bottom" if away > 0 else "top"
    axes.annotate(text, (x, y), (0, away), textcoords="offset points", ha="center", va=side, fontsize=9)


def _name(scenario: Scenario, width: int = 40) -> str:
    return f"{_drawable(fitted(scenario.name, width))}, {load_of(scenario.load)}"


def _outcome(scenario: Scenario) -> str:
    summary = summarize(scenario)
    said = f"{scenario.rounds[summary.median_round].successes:,} right answers"
    lost = summary.failed + summary.wrong_answers
    return f"{said}, {lost:,} requests failed over all rounds" if lost else f"{said}, none failed"


def _say(axes: Axes, text: str, silent: Literal["x", "y", "both"]) -> None:
    """Puts a sentence in place of what a panel would show; the `silent` axes lose their numbers."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=_GREY)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, bottom=False)
    axes.tick_params(axis=silent, labelleft=False, labelbottom=False)


def _plain(value: float, _position: int | None = None) -> str:
    return f"{value:,.7g}"


def _drawable(name: str) -> str:
    """The name with a question mark for each character that the font cannot draw."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    return "".join(c if font.get_char_index(ord(c)) else "?" for c in name)
