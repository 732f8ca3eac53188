"""The models that every peer serves: the same code in each environment, numpy only.

A model takes a float32 batch [n, values in] and gives a float32 batch [n, values out]. None checks its input:
what a check would cost is left out of the peers' figures.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["MODELS", "Floats", "Model", "big", "echo", "joined", "mlp"]

Floats = NDArray[np.float32]

_DIGITS = Path(__file__).resolve().parents[2] / "zmqinfer" / "zoo" / "digits"


class Model(NamedTuple):
    """A function of batches and the length of its rows, in float32 values."""

    run: Callable[[Floats], Floats]
    values_in: int
    values_out: int


def echo(batch: Floats) -> Floats:
    """Gives the batch back."""
    return batch


def mlp(batch: Floats) -> Floats:
    """Runs the shipped digits network, with the arithmetic of zmqinfer's numpy backend: logits out."""
    layers = _layers()
    x = batch
    # As in the product: a caller's NaN gives NaN in that row, without a warning.
    with np.errstate(over="ignore", invalid="ignore"):
        for weights, bias in layers[:-1]:
            x = x @ weights
            x += bias
            np.maximum(x, 0, out=x)
        weights, bias = layers[-1]
        x = x @ weights
        x += bias
    return x


def big(batch: Floats) -> Floats:
    """Gives the mean of each row: an image's bytes in (224 x 224 x 3 float32, 602,112), one value out."""
    means: Floats = batch.mean(axis=1, keepdims=True)
    return means


MODELS = {
    "echo": Model(echo, 64, 64),
    "mlp": Model(mlp, 64, 10),
    "big": Model(big, 224 * 224 * 3, 1),
}


def joined(bodies: list[bytes]) -> Floats:
    """Makes one batch [n, values in] of n rows of raw bytes of equal length; copies once, or never for one row."""
    raw = bodies[0] if len(bodies) == 1 else b"".join(bodies)
    return np.frombuffer(raw, np.float32).reshape(len(bodies), -1)


@cache
def _layers() -> tuple[tuple[Floats, Floats], ...]:
    newest = max(_DIGITS.glob("*/weights.npz"), key=lambda path: int(path.parent.name))
    with np.load(newest) as archive:
        return tuple((archive[f"w{i}"], archive[f"b{i}"]) for i in range(len(archive.files) // 2))
