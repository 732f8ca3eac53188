"""Inputs that a load is made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqinfer.load.inputs import made_up, rows_of
from zmqinfer.machine.client.codec import Input
from zmqinfer.signature import ANY, Signature, TensorSpec
from zmqinfer.tensor import DTYPES, Array, layout_of

Y = (TensorSpec("y"),)
SPECS = st.builds(
    lambda dtype, shape: TensorSpec("x", dtype, shape),
    st.sampled_from([ANY, *DTYPES]),
    st.none() | st.lists(st.sampled_from([-1, 0, 1, 3]), max_size=4).map(tuple),
)


def named(one: Input) -> dict[str, Array]:
    return {"": one} if isinstance(one, np.ndarray) else dict(one)


@settings(max_examples=30)
@given(st.lists(SPECS, min_size=1, max_size=3))
def test_what_is_made_up_fits_the_signature(specs: list[TensorSpec]) -> None:
    """Whatever a model declares: numbers, images, sequences, any dtype and shape."""
    signature = Signature(tuple(TensorSpec(f"x{n}", s.dtype, s.shape) for n, s in enumerate(specs)), Y)

    inputs = made_up(signature)

    assert 1 <= len(inputs) <= 256
    for one in (inputs[0], inputs[-1]):
        signature.order(layout_of(named(one), None), "m")
        assert sum(array.nbytes for array in named(one).values()) < 5 * 2**20


@pytest.mark.parametrize(
    ("shapes", "lengths", "count"),
    [
        ([(-1,)], [(64,)], 256),
        ([()], [()], 256),
        ([None], [(64,)], 256),
        ([(-1, -1, 3)], [(64, 64, 3)], 256),
        ([(-1, -1, -1, -1)], [(16, 16, 16, 16)], 256),
        ([(3, 224, 224)], [(3, 224, 224)], 111),
        ([(-1,), (-1, 4_096)], [(16,), (16, 4_096)], 255),
    ],
)
def test_axes_of_any_length_get_a_sensible_one(
    shapes: list[tuple[int, ...] | None], lengths: list[tuple[int, ...]], count: int
) -> None:
    """The same in all inputs; and of large inputs there are fewer."""
    signature = Signature(tuple(TensorSpec(f"x{n}", "FP32", shape) for n, shape in enumerate(shapes)), Y)

    inputs = made_up(signature)

    assert [array.shape for array in named(inputs[0]).values()] == lengths
    assert len(inputs) == count


VECTOR = TensorSpec("x", "FP32", (-1,))
NUMBER = TensorSpec("n", "INT32", ())


@pytest.mark.parametrize(
    ("specs", "taken", "rows"),
    [
        ([VECTOR], np.zeros(5), [(5,)]),
        ([VECTOR], np.zeros((2, 5)), [(5,), (5,)]),
        ([NUMBER], np.zeros(3), [(), (), ()]),
        ([NUMBER], np.zeros(()), [()]),
        ([VECTOR], np.zeros((2, 5, 7)), [(2, 5, 7)]),  # the client says what is wrong with it
        ([TensorSpec("x")], np.zeros((2, 5)), [(2, 5)]),
        ([VECTOR, NUMBER], {"x": np.zeros((2, 5)), "n": np.zeros(2)}, [{"x": (5,), "n": ()}] * 2),
        ([VECTOR, NUMBER], {"x": np.zeros((2, 5)), "n": np.zeros(3)}, [{"x": (2, 5), "n": (3,)}]),
        ([VECTOR, NUMBER], {"x": np.zeros(5), "n": np.zeros(())}, [{"x": (5,), "n": ()}]),
        ([VECTOR], {"y": np.zeros((2, 5))}, [{"y": (2, 5)}]),
    ],
)
def test_what_was_given_is_one_input_or_rows_of_them(specs: list[TensorSpec], taken: Input, rows: list[object]) -> None:
    """Rows if every array has one axis more than is declared."""
    found = rows_of(taken, specs)

    assert all(isinstance(array, np.ndarray) for one in found for array in named(one).values())
    assert [
        one.shape if isinstance(one, np.ndarray) else {name: array.shape for name, array in one.items()}
        for one in found
    ] == rows
