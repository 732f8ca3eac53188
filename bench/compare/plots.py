"""The pictures of a comparison: for each model, throughput at the loads and the latency of one call at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.compare.figures import Cell, medians
from bench.compare.promises import Results

__all__ = ["draw"]

# Okabe and Ito's colours, which colour-blind people can tell apart; the text beside the bars says the same.
_COLOURS = {"zmqinfer": "#0072B2", "floor": "#999999", "": "#E69F00"}


def draw(results: Results, model: str, path: Path, caption: str) -> None:
    """Draws one model's picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    busy = _named(results, model, 200)
    quiet = _named(results, model, 1)
    figure = Figure(figsize=(13, 1.8 + 0.34 * max(len(busy), len(quiet))), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rates = sorted(((name, medians(results[cell]).requests_per_s) for name, cell in busy), key=lambda pair: pair[1])
    _bars(left, rates, "{:,.0f}")
    left.set_title(f"{model}: requests a second, 200 in flight (longer is better)", loc="left", fontsize=11)
    times = sorted(((name, medians(results[cell]).p50_ms) for name, cell in quiet), key=lambda pair: -pair[1])
    _bars(right, times, "{:.2f} ms")
    right.set_title("median latency, one in flight (shorter is better)", loc="left", fontsize=11)
    figure.supxlabel(caption, fontsize=9)
    figure.savefig(path)


def _named(results: Results, model: str, in_flight: int) -> list[tuple[str, Cell]]:
    cells = [cell for cell in results if cell.model == model and cell.in_flight == in_flight]
    return [(f"{cell.system}, {cell.driver}", cell) for cell in cells]


def _bars(axes: object, pairs: Sequence[tuple[str, float]], form: str) -> None:
    names = [name for name, _ in pairs]
    values = [value for _, value in pairs]
    colours = [_COLOURS.get(name.split(",")[0].split(":")[0], _COLOURS[""]) for name in names]
    bars = axes.barh(names, values, color=colours)  # type: ignore[attr-defined]
    axes.bar_label(bars, [form.format(value) for value in values], padding=4, fontsize=9)  # type: ignore[attr-defined]
    axes.margins(x=0.15)  # type: ignore[attr-defined]
    # Every bar says its value.
    axes.xaxis.set_visible(False)  # type: ignore[attr-defined]
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)  # type: ignore[attr-defined]
