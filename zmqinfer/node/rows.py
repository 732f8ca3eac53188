"""A call of many rows: cut into pieces that the model's largest batch takes, and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from zmqinfer.errors import Executed, InvalidArgument, ZmqInferError
from zmqinfer.machine.client.codec import Codec, Input, Output
from zmqinfer.tensor import Array, Arrays, named_arrays

__all__ = ["join", "pieces_of", "tell_of_all"]

# At a time: a gateway takes only so many requests of one client.
_MOST_PIECES = 1_024
# Rows at a time for a model of which nothing is known yet.
_USUAL_ROWS = 32


def pieces_of(codec: Codec, model: str, version: int | None, x: Input, done: int) -> list[tuple[Input, int]]:
    """Returns the next pieces of n rows, of which `done` are, with their rows; none if all are.

    Of a model not known yet one row goes ahead: behind its answer the largest batch is known.

    Raises:
        InvalidArgument: there is no row, or the inputs' leading axes differ.
    """
    arrays = named_arrays(x, f"model {model!r}")
    is_bare = not isinstance(x, Mapping)
    lengths = {
        name: array.shape[0] if isinstance(array, np.ndarray) and array.ndim else 0 for name, array in arrays.items()
    }
    rows = next(iter(lengths.values()), 0)
    if is_bare and not rows:
        shape = list(arrays[""].shape)
        raise InvalidArgument(f"the input has shape {shape}, expected a leading axis of 1 or more rows")
    if not rows or any(length != rows for length in lengths.values()):
        raise InvalidArgument(
            f"the leading axes of the inputs are {lengths}, expected one number of rows, 1 or more, for all"
        )
    card = codec.card(model, version)
    step = min(rows, card[1] if card else _USUAL_ROWS)
    starts = range(done, rows, step)[:_MOST_PIECES]
    cuts = [(at, min(at + step, rows)) for at in starts] if card or done else [(0, 1)]
    if is_bare:
        return [(arrays[""][low:high], high - low) for low, high in cuts]
    return [({name: array[low:high] for name, array in arrays.items()}, high - low) for low, high in cuts]


def tell_of_all(error: ZmqInferError, *, has_others: bool) -> None:
    """Lets the error of one piece speak of its whole call, of which other pieces may have run."""
    if has_others and error.executed is Executed.NO:
        error.executed = Executed.MAYBE


def join(pieces: list[Output]) -> Output:
    """Puts the results of the pieces together again along the leading axis."""
    first = pieces[0]
    if len(pieces) == 1:
        return first
    if isinstance(first, np.ndarray):
        return _joined(cast("list[Array]", pieces))
    return {name: _joined([piece[name] for piece in cast("list[Arrays]", pieces)]) for name in first}


def _joined(arrays: list[Array]) -> Array:
    """Joins results, read-only as each of them is."""
    whole = np.concatenate(arrays)
    whole.setflags(write=False)
    return whole
