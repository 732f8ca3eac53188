"""What all pictures have: size, colours, style, a heading, and names that the font can draw.

Colours are Okabe and Ito's, which colour-blind people can tell apart; nothing is said by colour alone. matplotlib is
imported inside, its pyplot never.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from zmqinfer.load.report import fitted, load_of
from zmqinfer.load.results import BenchResult, LoadResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.text import Annotation

__all__ = [
    "BLUE",
    "DPI",
    "GREY",
    "HEIGHT_PX",
    "LABEL_PX",
    "LINE_PX",
    "ORANGE",
    "VERMILLION",
    "WIDTH_PX",
    "drawable",
    "figure_of",
    "label",
    "name_of",
    "plain",
    "say",
    "sign",
    "style",
    "time_axis",
    "title",
]

WIDTH_PX, HEIGHT_PX, DPI = 1200, 700, 100
BLUE, ORANGE, VERMILLION, GREY = "#0072B2", "#E69F00", "#D55E00", "#595959"
# How wide a character and how high a line of a label is; wide enough for the widest.
LABEL_PX, LINE_PX = 7.2, 17
_STYLE = {
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.titlesize": 13,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": "#E5E5E5",
    "hatch.color": "white",
    "text.parse_math": False,
    "text.usetex": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Our style in place of what the user's matplotlibrc says."""
    from matplotlib import style as styles

    with styles.context(["default", _STYLE]):
        yield


def figure_of(height_px: int) -> Figure:
    """An empty picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_PX / DPI, height_px / DPI), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    return figure


def title(part: Figure | SubFigure, text: str, scenarios: Sequence[LoadResult]) -> None:
    """Heads a picture, or a part of one, with the models that it is of."""
    models = ", ".join(dict.fromkeys(drawable(fitted(s.model, 30)) for s in scenarios))
    part.suptitle(f"{fitted(models, 60)}: {text}", x=0.01, ha="left")


def sign(figure: Figure, result: BenchResult) -> None:
    """Says below a picture when and where it was measured; of a simulation the machine says nothing."""
    started = datetime.fromisoformat(result.started_at)
    is_virtual = result.configuration.settings.get("time") == "virtual"
    workers = result.configuration.workers
    facts = (
        f"{started:%Y-%m-%d %H:%M} UTC",
        "virtual time" if is_virtual else f"{result.machine.cores} cores, {fitted(result.machine.cpu_model, 50)}",
        f"{workers} worker{'' if workers == 1 else 's'}",
        f"zmqinfer {result.versions.zmqinfer}",
    )
    text = "    ".join(facts)
    figure.supxlabel(drawable(text), x=0.01, ha="left", fontsize=9, color=GREY)


def time_axis(axis: Axis, low: float, high: float) -> None:
    """Scales a logarithmic axis of milliseconds from `low` to `high`, with few and plain numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1.0,) if high / low > 3000 else (1.0, 2.0, 5.0)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    if high / low < 8:
        ticks = [float(tick) for tick in MaxNLocator(7).tick_values(low, high)]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_label_text("latency (ms, logarithmic)")


def label(axes: Axes, text: str, x: float, y: float, away: float) -> Annotation:
    """Centres the text above the point, or below it if `away` (in points) is negative."""
    side = "bottom" if away > 0 else "top"
    return axes.annotate(text, (x, y), (0, away), textcoords="offset points", ha="center", va=side, fontsize=9)


def name_of(scenario: LoadResult, scenarios: Sequence[LoadResult], width: int = 40) -> str:
    """Names one of several scenarios, with its model if they are of several."""
    model = f"{drawable(fitted(scenario.model, width))}, " if len({s.model for s in scenarios}) > 1 else ""
    return f"{model}{drawable(fitted(scenario.name, width))}, {load_of(scenario.load)}"


def say(axes: Axes, text: str, silent: Literal["x", "y", "both"]) -> None:
    """Puts a sentence in place of what a panel would show; the `silent` axes lose their numbers."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, bottom=False)
    axes.tick_params(axis=silent, labelleft=False, labelbottom=False)


def plain(value: float, _position: int | None = None) -> str:
    """A number of an axis, without a power of ten."""
    return f"{value:,.7g}"


def drawable(name: str) -> str:
    """The name with a question mark for each character that the font cannot draw."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    return "".join(c if font.get_char_index(ord(c)) else "?" for c in name)
