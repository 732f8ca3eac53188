"""What a model takes, and what it refuses."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqinfer.errors import InvalidArgument, ProtocolError
from zmqinfer.signature import ANY, Signature, TensorSpec
from zmqinfer.tensor import DTYPES, MAX_ELEMENTS, Array, layout_of

FP32 = np.dtype("<f4")
ONE = Signature((TensorSpec("x", "FP32", (64,)),), (TensorSpec("y", "FP32", (10,)),))
TWO = Signature((TensorSpec("ids", "INT64", (-1,)), TensorSpec("mask", "BOOL", (-1,))), (TensorSpec("y", "FP32", ()),))

names = st.from_regex(r"\A[A-Za-z0-9._:-]{1,12}\Z")
specs = st.lists(
    st.builds(
        TensorSpec,
        names,
        st.sampled_from([ANY, *DTYPES]),
        st.none() | st.lists(st.integers(-1, MAX_ELEMENTS), max_size=8).map(tuple),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda spec: spec.name,
).map(tuple)


def order(signature: Signature, **arrays: Array) -> tuple[int, ...]:
    return signature.order(layout_of(arrays, None), "scorer")


def test_inputs_may_come_in_any_order() -> None:
    """The answer says where each declared input lies."""
    ids, mask = np.zeros(3, "<i8"), np.zeros(3, bool)

    assert order(TWO, ids=ids, mask=mask) == (0, 1)
    assert order(TWO, mask=mask, ids=ids) == (1, 0)


def test_the_only_input_needs_no_name() -> None:
    """A bare array has the empty name."""
    assert order(ONE, **{"": np.zeros(64, FP32)}) == (0,)
    assert order(ONE, x=np.zeros(64, FP32)) == (0,)


@pytest.mark.parametrize(
    ("signature", "arrays", "message"),
    [
        (ONE, {"x": np.zeros(64)}, r"input 'x' is FP64 \[64\], model 'scorer' takes FP32 \[64\]; convert"),
        (ONE, {"": np.zeros(63, FP32)}, r"input 'x' is FP32 \[63\], model 'scorer' takes FP32 \[64\]"),
        (ONE, {"x": np.zeros((1, 64), FP32)}, r"input 'x' is FP32 \[1, 64\]"),
        (ONE, {"z": np.zeros(64, FP32)}, "model 'scorer' has no input 'z'; it takes x"),
        (ONE, {"x": np.zeros(64, FP32), "z": np.zeros(1)}, "no input 'z'"),
        (TWO, {"ids": np.zeros(3, "<i8")}, "input 'mask' is missing; model 'scorer' takes ids, mask"),
        (TWO, {"": np.zeros(3, "<i8")}, r"takes 2 inputs \(ids, mask\), a bare array came; pass a dict"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(signature: Signature, arrays: dict[str, Array], message: str) -> None:
    """Which input, what came, and what the model takes; nothing is cast."""
    with pytest.raises(InvalidArgument, match=message):
        order(signature, **arrays)


@pytest.mark.parametrize(
    ("spec", "shape", "fits"),
    [
        (TensorSpec("x", "FP32", ()), (), True),
        (TensorSpec("x", "FP32", ()), (1,), False),
        (TensorSpec("x", "FP32", (-1, 3)), (0, 3), True),
        (TensorSpec("x", "FP32", (-1, 3)), (7, 3), True),
        (TensorSpec("x", "FP32", (-1, 3)), (7, 4), False),
        (TensorSpec("x", "FP32", None), (1, 2, 3), True),
        (TensorSpec("x", "FP64", None), (1, 2, 3), False),
        (TensorSpec("x"), (5,), True),
    ],
)
def test_a_variable_axis_takes_any_length(spec: TensorSpec, shape: tuple[int, ...], fits: bool) -> None:
    """-1 stands for one axis, None for all of them, ANY for every dtype."""
    field = layout_of({"other": np.zeros(shape, FP32)}, None).fields[0]

    assert spec.fits(field) is fits


def test_a_declaration_reads_well() -> None:
    """It stands in error messages."""
    assert [str(spec) for spec in (ONE.inputs[0], TensorSpec("x"))] == ["FP32 [64]", "any dtype of any shape"]


@pytest.mark.slow
@given(inputs=specs, outputs=specs)
def test_a_signature_survives_the_wire(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    """to_wire and from_wire are inverse."""
    signature = Signature(inputs, outputs)

    assert Signature.from_wire(msgpack.unpackb(msgpack.packb(signature.to_wire()))) == signature


GOOD = ["x", "FP32", [2]]


@pytest.mark.parametrize(
    "spec",
    [
        None,
        "x",
        GOOD[:2],
        [*GOOD, 1],
        [1, "FP32", [2]],
        ["", "FP32", [2]],
        ["x y", "FP32", [2]],
        ["x", "BF16", [2]],
        ["x", None, [2]],
        ["x", ["FP32"], [2]],
        ["x", "FP32", 2],
        ["x", "FP32", [-2]],
        ["x", "FP32", [1.0]],
        ["x", "FP32", [True]],
        ["x", "FP32", [MAX_ELEMENTS + 1]],
        ["x", "FP32", [1] * 9],
    ],
)
def test_a_wrong_declaration_is_a_protocol_error(spec: object) -> None:
    """Checked on both sides."""
    for value in ([[spec], [GOOD]], [[GOOD], [spec]]):
        with pytest.raises(ProtocolError):
            Signature.from_wire(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [],
        [[GOOD]],
        [[GOOD], []],
        [[GOOD], [GOOD], [GOOD]],
        [[GOOD, GOOD], [GOOD]],
        [[GOOD] * 17, [GOOD]],
    ],
)
def test_what_is_no_signature_is_a_protocol_error(value: object) -> None:
    """Without inputs or outputs, with too many, or with one of them twice."""
    with pytest.raises(ProtocolError):
        Signature.from_wire(value)


nonsense = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["x", "FP32", ANY]),
    lambda children: st.lists(children, max_size=4),
    max_leaves=16,
)


@given(value=nonsense | st.tuples(nonsense, nonsense).map(list))
def test_any_value_gives_a_signature_or_a_protocol_error(value: object) -> None:
    """Nothing else is raised, whatever a socket brings."""
    try:
        signature = Signature.from_wire(value)
    except ProtocolError:
        return
    assert signature.inputs
    assert signature.outputs
