"""Inputs for a load: made up from what a model declares, or rows of what somebody gave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zmqinfer.machine.client.codec import Input
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import DTYPES, Array

__all__ = ["made_up", "rows_of"]

# So many different ones, if they are not too large for that together.
_INPUTS = 256
_ALL_BYTES = 64 * 2**20
# An axis of any length gets so many elements, as long as one input has no more than that in all.
_FREE_AXIS = 64
_ELEMENTS = 65_536


def made_up(signature: Signature) -> list[Input]:
    """Returns different inputs that fit a signature: floats from 0 to 1, whole numbers and truths 0 or 1.

    Axes of any length are as long as each other, in all inputs: many models want the same number of elements in each.
    """
    random = np.random.default_rng(20_231)
    free_axis = min(_free_axis(spec.shape) for spec in signature.inputs)
    first = _one(signature, free_axis, random)
    count = _ALL_BYTES // max(1, sum(array.nbytes for array in first.values()))
    more = (_one(signature, free_axis, random) for _ in range(min(count, _INPUTS) - 1))
    return [_plain(arrays) for arrays in (first, *more)]


def _free_axis(shape: tuple[int, ...] | None) -> int:
    free = sum(axis == -1 for axis in shape or ())
    fixed = np.prod([axis for axis in shape or () if axis > 0], dtype=float)
    return max(1, min(_FREE_AXIS, int((_ELEMENTS / fixed) ** (1 / free)))) if free else _FREE_AXIS


def _one(signature: Signature, free_axis: int, random: np.random.Generator) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for spec in signature.inputs:
        dtype = DTYPES.get(spec.dtype, DTYPES["FP32"])
        shape = [free_axis if axis == -1 else axis for axis in ((-1,) if spec.shape is None else spec.shape)]
        values = random.random(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
        arrays[spec.name] = np.asarray(values).astype(dtype)
    return arrays


def _plain(arrays: dict[str, Array]) -> Input:
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def rows_of(given: Input, specs: Sequence[TensorSpec]) -> list[Input]:
    """Returns the inputs in what was given: the rows, if all arrays have one axis more than declared, else itself."""
    arrays = {specs[0].name: given} if isinstance(given, np.ndarray) else dict(given)
    ranks = {spec.name: len(spec.shape) for spec in specs if spec.shape is not None}
    has_rows = all(name in ranks and array.ndim == ranks[name] + 1 for name, array in arrays.items())
    if not has_rows or len({len(array) for array in arrays.values()}) != 1:
        return [given]
    count = len(next(iter(arrays.values())))
    # Not [row] alone: of one axis that would leave numbers, which are no arrays.
    return [_plain({name: array[row, ...] for name, array in arrays.items()}) for row in range(count)]
