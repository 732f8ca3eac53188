"""The pictures of a benchmark, drawn from its results alone; each file that draws one says what it shows."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from zmqinfer.load.canvas import DPI, sign, style
from zmqinfer.load.comparison_picture import comparison_figure
from zmqinfer.load.latency_picture import latency_figure
from zmqinfer.load.node_picture import node_figure
from zmqinfer.load.results import BenchResult
from zmqinfer.load.stored import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COMPARISON_FILE", "LATENCY_FILE", "NODE_FILE", "draw", "write_pictures"]

LATENCY_FILE = "latency_distribution.png"
NODE_FILE = "node_distribution.png"
COMPARISON_FILE = "performance_comparison.png"


def write_pictures(result: BenchResult, directory: Path) -> tuple[Path, ...]:
    """Writes the three pictures into `directory`; each all or nothing.

    Raises:
        ConfigError: a file cannot be written.
    """
    paths = []
    with style():
        for name, figure in draw(result).items():
            content = BytesIO()
            figure.savefig(content, format="png", dpi=DPI)
            paths.append(directory / name)
            write_atomically(paths[-1], content.getvalue())
    return tuple(paths)


def draw(result: BenchResult) -> dict[str, Figure]:
    """The pictures by the names of their files."""
    with style():
        figures = {
            LATENCY_FILE: latency_figure(result.scenarios),
            NODE_FILE: node_figure(result.scenarios),
            COMPARISON_FILE: comparison_figure(result),
        }
        for figure in figures.values():
            sign(figure, result)
        return figures
