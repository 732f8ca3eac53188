"""Two real models, and what a batch of each costs on this machine.

`dense` gains from batches: eight layers of 1,024 whose weights are read once for a batch. `sorting` does
not: each row takes its own time. On a CPU both kinds are common, which is why the product measures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MODELS", "SIZES", "MeasuredCurve", "dense", "measured", "sorting"]

Floats = NDArray[np.float32]

SIZES = (1, 2, 4, 8, 16, 32)
WIDTH = 1_024
LAYERS = 8
SORTED = 16_384
_WEIGHTS = [
    np.random.default_rng(layer).standard_normal((WIDTH, WIDTH), np.float32) / np.float32(WIDTH**0.5)
    for layer in range(LAYERS)
]


def dense(x: Floats) -> Floats:
    """Runs n rows of 1,024 through the layers."""
    for weights in _WEIGHTS:
        x = np.maximum(x @ weights, 0)
    return x


def sorting(x: Floats) -> Floats:
    """Sorts 16,384 values for each of n rows of 1,024, and gives back their first 1,024."""
    return np.sort(np.tile(x, (1, SORTED // WIDTH)), axis=1)[:, :WIDTH]


MODELS: dict[str, Callable[[Floats], Floats]] = {"dense": dense, "sorting": sorting}


@dataclass(frozen=True, slots=True)
class MeasuredCurve:
    """Seconds a batch by its size, between the measured sizes in a straight line."""

    seconds: dict[int, float]

    def __call__(self, rows: int) -> float:
        """Returns the time of a batch of so many rows."""
        return float(np.interp(rows, list(self.seconds), list(self.seconds.values())))

    @property
    def capacity(self) -> float:
        """Rows a second in full batches."""
        largest = max(self.seconds)
        return largest / self.seconds[largest]

    @property
    def gain(self) -> float:
        """How many times as many rows a second full batches bring as single rows."""
        return self.capacity * self.seconds[1]


def measured(model: str, repeats: int = 15) -> MeasuredCurve:
    """Times batches of every size, the sizes in turns; medians."""
    run = MODELS[model]
    inputs = {size: np.random.default_rng(size).random((size, WIDTH), np.float32) for size in SIZES}
    times: dict[int, list[float]] = {size: [] for size in SIZES}
    for x in inputs.values():
        run(x)
    for _ in range(repeats):
        for size, x in inputs.items():
            began_at = time.perf_counter()
            run(x)
            times[size].append(time.perf_counter() - began_at)
    return MeasuredCurve({size: statistics.median(taken) for size, taken in times.items()})
