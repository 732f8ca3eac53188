"""Arrays as bytes and back, and what hostile layouts get."""

from __future__ import annotations

import math

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqinfer import tensor
from zmqinfer.errors import InvalidArgument, ProtocolError
from zmqinfer.tensor import (
    DTYPES,
    INLINE_BYTES,
    MAX_ELEMENTS,
    MAX_LAYOUT_BYTES,
    MAX_NDIM,
    MAX_TENSORS,
    Array,
    layout_of,
    pack,
    parse_layout,
    payload_bytes,
    unpack,
)

StringDType = getattr(np.dtypes, "StringDType", None)  # NumPy 2

shapes = st.lists(st.integers(0, 3), max_size=MAX_NDIM).map(tuple)


@st.composite
def arrays(draw: st.DrawFn, rows: int | None = None) -> Array:
    """Draws an array of any dtype and shape, of arbitrary bits, in any memory order and endianness."""
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    shape = draw(shapes)
    shape = shape if rows is None else (rows, *shape)
    size = math.prod(shape) * dtype.itemsize
    bits = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    if dtype == np.bool_:
        bits = bits & 1
    array = bits.view(dtype).reshape(shape)
    match draw(st.sampled_from(["as it is", "fortran", "big-endian", "strided", "read-only"])):
        case "fortran":
            array = np.asfortranarray(array).reshape(shape)
        case "big-endian":
            array = array.byteswap().view(dtype.newbyteorder(">"))
        case "strided":
            array = np.repeat(array, 2, axis=-1)[..., ::2] if shape else array
        case "read-only":
            array.flags.writeable = False
    return array


def bits(array: Array) -> bytes:
    """Returns the exact bits in wire order: -0.0 and the payload of a NaN count."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def assert_same(got: Array, sent: Array) -> None:
    assert isinstance(got, np.ndarray)
    assert got.dtype == sent.dtype.newbyteorder("<")
    assert got.shape == sent.shape
    assert bits(got) == bits(sent)


@given(array=arrays())
def test_one_row_comes_back_bit_for_bit(array: Array) -> None:
    """All dtypes, 0 to 8 axes, empty ones too, through the bytes of the layout as a peer reads them."""
    layout = layout_of({"": array}, None)

    (got,) = unpack(parse_layout(layout.raw), None, pack([array]))

    assert_same(got, array)


@given(sent=st.integers(1, 4).flatmap(lambda rows: st.lists(arrays(rows), min_size=1, max_size=4)))
def test_rows_of_several_tensors_come_back_bit_for_bit(sent: list[Array]) -> None:
    """The leading axis is the rows', and no part of the layout."""
    rows = sent[0].shape[0]
    layout = layout_of({f"t{place}": array for place, array in enumerate(sent)}, rows)

    got = unpack(parse_layout(layout.raw), rows, pack(sent))

    assert [field.shape for field in layout.fields] == [array.shape[1:] for array in sent]
    assert layout.row_bytes * rows == sum(array.nbytes for array in sent)
    for mine, theirs in zip(got, sent, strict=True):
        assert_same(mine, theirs)


@given(array=arrays())
def test_parts_of_their_own_come_back_bit_for_bit(array: Array) -> None:
    """What is out of band is read like what is inline."""
    layout = layout_of({"x": array}, None)
    part = pack([array])
    assert isinstance(part, bytes)

    (got,) = unpack(layout, None, [memoryview(part)])

    assert_same(got, array)


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - {"BOOL"}))
def test_special_values_keep_their_bits(dtype: str) -> None:
    """-0.0, infinities, NaN with a payload, and the extremes of integers."""
    kind = DTYPES[dtype]
    if kind.kind == "f":
        nan = np.full(kind.itemsize, 0xFF, np.uint8).view(kind)  # negative and quiet, all payload bits set
        array = np.concatenate([np.array([-0.0, np.inf, -np.inf], kind), nan])
    else:
        array = np.array([np.iinfo(kind).min, np.iinfo(kind).max], kind)

    (got,) = unpack(layout_of({"x": array}, None), None, pack([array]))

    assert bits(got) == array.tobytes()


def test_the_bytes_are_little_endian_and_in_c_order() -> None:
    """The specification, as bytes."""
    array = np.asfortranarray(np.array([[1, 2], [3, 4]], ">i2"))

    assert pack([array]) == b"\1\0\2\0\3\0\4\0"


def test_true_is_one() -> None:
    """A BOOL byte that is neither 0 nor 1 would trip NumPy's kernels."""
    for shape, raw in (((3,), b"\0\2\xff"), ((), b"\x80")):
        layout = layout_of({"x": np.zeros(shape, bool)}, None)

        (got,) = unpack(layout, None, raw)

        assert isinstance(got, np.ndarray)
        assert bits(got) == bytes(byte != 0 for byte in raw)


def test_a_big_array_travels_from_where_it_lies() -> None:
    """Above the inline limit neither end copies."""
    array = np.arange(INLINE_BYTES // 4 + 1, dtype="<f4").reshape(1, -1)

    payload = pack([array])
    assert isinstance(payload, list)
    (got,) = unpack(layout_of({"x": array}, None), None, payload)

    assert payload_bytes(payload) == array.nbytes
    assert np.shares_memory(np.frombuffer(payload[0], np.uint8), array)
    assert np.shares_memory(got, array)
    assert not got.flags.writeable


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_big_array_of_any_dtype_and_memory_order_goes_out_of_band(dtype: str) -> None:
    """What does not lie in wire order is copied once."""
    array = (np.arange(INLINE_BYTES * 2).reshape(2, 2, -1) % 2).astype(DTYPES[dtype])[:, ::-1].swapaxes(0, 1)

    payload = pack([array])
    (got,) = unpack(layout_of({"x": array}, None), None, payload)

    assert isinstance(payload, list)
    assert_same(got, array)


def test_the_inline_limit_counts_all_tensors() -> None:
    """At the limit inline, one byte above it one part each, an empty tensor too."""
    half = np.zeros(INLINE_BYTES // 2, np.uint8)
    sent = [half, np.zeros(INLINE_BYTES // 2 + 1, np.uint8), np.zeros((0, 3), "<f8")]

    assert type(pack([half, half])) is bytes
    payload = pack(sent)
    got = unpack(layout_of({"a": sent[0], "b": sent[1], "c": sent[2]}, None), None, payload)

    assert [len(part) for part in payload] == [len(half), len(half) + 1, 0]
    assert [array.shape for array in got] == [array.shape for array in sent]


def test_what_comes_inline_is_read_only() -> None:
    """The arrays are views of what came."""
    (got,) = unpack(layout_of({"x": np.zeros(2)}, None), None, bytes(16))

    assert not got.flags.writeable


class _Masked(np.ma.MaskedArray):
    """A subclass, as a user might have it."""


@pytest.mark.parametrize(
    ("value", "came"),
    [
        (np.array([None]), "has dtype object"),
        (np.array(["text"]), "has dtype <U4"),
        (np.array([b"text"]), "has dtype |S4"),
        *([(np.array(["a"], StringDType()), "has dtype StringDType()")] if StringDType else []),
        (np.array([1j]), "has dtype complex128"),
        (np.array(["2024-01-01"], "M8[D]"), "has dtype datetime64[D]"),
        (np.array([1], "m8[s]"), "has dtype timedelta64[s]"),
        (np.zeros(1, [("a", "<f4")]), "has dtype [('a', '<f4')]"),
        (np.zeros(1, "V4"), "has dtype |V4"),
        ([1.0, 2.0], "is a list"),
        (1.5, "is a float"),
        (None, "is None"),
        (np.float32(1), "is a numpy.float32"),
        (np.ma.masked_array([1.0], [True]), "MaskedArray, expected a numpy.ndarray"),
        (_Masked([1.0]), "_Masked"),
    ],
)
def test_what_cannot_travel_is_refused_by_name(value: object, came: str) -> None:
    """The caller learns which input, what came and what was expected."""
    with pytest.raises(InvalidArgument) as caught:
        layout_of({"pixels": value}, None)  # type: ignore[dict-item]

    assert str(caught.value).startswith("input 'pixels' ")
    assert came in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_bare_array_is_called_the_input() -> None:
    """Without a name there is none to tell."""
    with pytest.raises(InvalidArgument, match=r"^the input is a list, expected a numpy\.ndarray; convert"):
        layout_of({"": [1]}, None)  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["a b", "x\n", "\ud800", "é", "a" * 129, "../x", 3, None, b"x"])
def test_a_bad_name_is_refused(name: object) -> None:
    """A key that is no text, or no name, is the caller's mistake and no crash."""
    with pytest.raises(InvalidArgument, match="does not match"):
        layout_of({name: np.zeros(1)}, None)  # type: ignore[dict-item]


@pytest.mark.parametrize("count", [0, MAX_TENSORS + 1])
def test_the_number_of_tensors_is_bounded(count: int) -> None:
    """From 1 to 16 travel."""
    assert layout_of({f"t{i}": np.zeros(1) for i in range(MAX_TENSORS)}, None)

    with pytest.raises(InvalidArgument, match=f"the input has {count} arrays"):
        layout_of({f"t{i}": np.zeros(1) for i in range(count)}, None)


@pytest.mark.parametrize(("shape", "rows"), [((), 1), ((2,), 3), ((0, 3), 1), ((3, 0), 0)])
def test_a_batch_needs_its_leading_axis(shape: tuple[int, ...], rows: int) -> None:
    """Every input of a request of n rows has n rows."""
    with pytest.raises(InvalidArgument, match=rf"input 'x' has shape .* expected a leading axis of {rows} rows"):
        layout_of({"x": np.zeros(shape)}, rows)


@pytest.mark.parametrize("shape", [(1,) * (MAX_NDIM + 1), (MAX_ELEMENTS + 1,), (0, MAX_ELEMENTS, 2)])
def test_shapes_are_bounded_at_home_as_they_are_abroad(shape: tuple[int, ...]) -> None:
    """What a peer would refuse never leaves; an empty axis hides no huge one."""
    array = np.broadcast_to(np.zeros((), np.uint8), shape)

    with pytest.raises(InvalidArgument, match="input 'x' has shape"):
        layout_of({"x": array}, None)
    with pytest.raises(ProtocolError):
        parse_layout(msgpack.packb([["x", "UINT8", shape]]))


def test_the_largest_shapes_are_allowed() -> None:
    """Eight axes, and 2**28 elements, of one row."""
    most = np.broadcast_to(np.zeros((), np.uint8), (3, MAX_ELEMENTS))

    assert layout_of({"x": most}, 3).row_bytes == MAX_ELEMENTS
    assert layout_of({"x": np.zeros((3,) + (1,) * MAX_NDIM)}, 3).row_bytes == 8


def test_the_longest_layout_may_be_read() -> None:
    """What layout_of writes at its limits parse_layout takes."""
    array = np.zeros((0,) + (100,) * (MAX_NDIM - 4) + (1,) * 3, np.uint64)
    layout = layout_of({f"{place:0128}": array for place in range(MAX_TENSORS)}, None)

    assert parse_layout(layout.raw) == layout


X = ["x", "FP32", [2]]


@pytest.mark.parametrize(
    "spec",
    [
        None,
        {},
        [],
        "x",
        X,
        [X, X],
        [[*X, 1]],
        [X[:2]],
        [{"x": 1}],
        [[1, "FP32", [2]]],
        [[b"x", "FP32", [2]]],
        [["x y", "FP32", [2]]],
        [["x" * 129, "FP32", [2]]],
        [["x", "float32", [2]]],
        [["x", "BF16", [2]]],
        [["x", "BYTES", [2]]],
        [["x", ["FP32"], [2]]],
        [["x", 7, [2]]],
        [["x", "FP32", 2]],
        [["x", "FP32", "2"]],
        [["x", "FP32", [-1]]],
        [["x", "FP32", [2.0]]],
        [["x", "FP32", [True]]],
        [["x", "FP32", [2**64 - 1]]],
        [["x", "FP32", [MAX_ELEMENTS, 2]]],
        [["x", "FP32", [0, *[MAX_ELEMENTS] * 7]]],
        [["x", "FP32", [1] * 9]],
        [[f"t{place}", "FP32", []] for place in range(MAX_TENSORS + 1)],
        [["x", "FP32", [msgpack.Timestamp(1)]]],
    ],
)
def test_a_wrong_layout_is_a_protocol_error(spec: object) -> None:
    """Each field's type and range is checked before NumPy sees it."""
    with pytest.raises(ProtocolError):
        parse_layout(msgpack.packb(spec))


@pytest.mark.parametrize("dtype", ["BF16", "BYTES"])
def test_reserved_dtypes_are_refused_by_name(dtype: str) -> None:
    """Their names are known, and not yet served."""
    with pytest.raises(ProtocolError, match=rf"dtype '{dtype}' \(reserved, not yet served\)"):
        parse_layout(msgpack.packb([["x", dtype, [2]]]))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"\x91" * 4000,  # nested too deep
        b"\xdd\xff\xff\xff\xff",  # an array of 4 billion
        b"\xdf\xff\xff\xff\xff",  # a map of 4 billion
        b"\x91\x93\xa1\xff\xa4FP32\x91\x02",  # a name that is no UTF-8
        msgpack.packb([X]) + b"\0",
        msgpack.packb([X])[:-1],
        bytes(MAX_LAYOUT_BYTES + 1),
    ],
)
def test_bytes_that_are_no_layout_are_a_protocol_error(raw: bytes) -> None:
    """Bombs and broken bytes end here."""
    with pytest.raises(ProtocolError):
        parse_layout(raw)


nonsense = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=2),
    max_leaves=8,
)
almost = st.lists(
    st.tuples(
        st.sampled_from(["x", "", "y"]) | nonsense,
        st.sampled_from([*DTYPES, *tensor.RESERVED_DTYPES]) | nonsense,
        st.lists(st.sampled_from([0, 1, 3, MAX_ELEMENTS, 2**63]), max_size=9) | nonsense,
    ),
    max_size=3,
)


@pytest.mark.slow
@given(
    raw=st.binary(max_size=64) | nonsense.map(msgpack.packb) | almost.map(msgpack.packb),
    rows=st.none() | st.integers(1, 65_536),
    payload=st.binary(max_size=48) | st.lists(st.binary(max_size=24), max_size=3),
)
def test_hostile_bytes_give_arrays_or_a_protocol_error(
    raw: bytes, rows: int | None, payload: bytes | list[bytes | memoryview]
) -> None:
    """Nothing else is raised, whatever a socket brings."""
    try:
        got = unpack(parse_layout(raw), rows, payload)
    except ProtocolError:
        return
    assert sum(array.nbytes for array in got) == payload_bytes(payload)


@pytest.mark.parametrize(
    "payload",
    [bytes(15), bytes(17), b"", [], [bytes(8)], [bytes(8)] * 3, [bytes(7), bytes(9)], [bytes(16), b""]],
)
def test_a_payload_of_another_size_is_a_protocol_error(payload: bytes | list[bytes | memoryview]) -> None:
    """Too short, too long, too many parts, or cut at another place."""
    layout = layout_of({"x": np.zeros(2, "<f4"), "y": np.zeros(2, "<f4")}, None)

    with pytest.raises(ProtocolError, match="expected"):
        unpack(layout, None, payload)


def test_a_layout_is_parsed_once() -> None:
    """The same bytes give the same object: a caller's kind of input is a dictionary look-up."""
    raw = layout_of({"x": np.zeros(3, "<f4")}, None).raw

    assert parse_layout(raw) is parse_layout(bytes(bytearray(raw)))
    assert layout_of({"x": np.ones(3, "<f4")}, None) is layout_of({"x": np.zeros((2, 3), "<f4")}, 2)
