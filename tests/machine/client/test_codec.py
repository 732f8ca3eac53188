"""Arrays to bodies and replies to arrays: the quick way says what the long way says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zmqinfer.errors import (
    EXECUTED,
    DeadlineExceeded,
    Executed,
    InvalidArgument,
    ProtocolError,
    Status,
)
from zmqinfer.machine.client.codec import Codec
from zmqinfer.records import OUTPUT, Record
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import DTYPES, INLINE_BYTES, layout_of, pack, parse_layout, unpack

ONE = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y"),))
TWO = Signature((TensorSpec("x", "FP32", (4,)), TensorSpec("n", "INT64", ())), (TensorSpec("y"),))
DTYPE = st.sampled_from(list(DTYPES.values()))
SHAPE = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def knowing(*cards: tuple[str, int, Signature]) -> Codec:
    codec = Codec()
    codec.learn([[name, version, as_lists(signature.to_wire()), 32, True, False] for name, version, signature in cards])
    return codec


def as_lists(value: Any) -> Any:
    """What msgpack makes of tuples on the way."""
    return [as_lists(inner) for inner in value] if isinstance(value, list | tuple) else value


def ok(arrays: dict[str, Any], rows: int | None = None) -> Record:
    """The REPLY that carries these arrays."""
    layout = layout_of(arrays, rows)
    return [1, 1, 0, layout.raw, pack(list(arrays.values())), "w1", 1, 1, 1, None, 1, 10, 20]


def block(calls: Iterable[dict[str, Any]]) -> Record:
    """The REPLY for a block whose calls have these outputs, of one row each."""
    arrays = [{name: np.asarray(array) for name, array in call.items()} for call in calls]
    payload = b"".join(bytes(part) for call in arrays for part in map(np.ndarray.tobytes, call.values()))
    return [
        7,
        2 ** len(arrays) - 1,
        0,
        layout_of(arrays[0], None).raw,
        payload,
        "w1",
        1,
        1,
        1,
        None,
        len(arrays),
        10,
        20,
    ]


def failed(status: Status, where: str | None = None, ran: Executed = Executed.NO, retry: int | None = None) -> Record:
    return [1, 1, int(status), "what happened", where, "w1", 1, 2, EXECUTED.index(ran), retry, 0, 0, 0]


def same(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


# Encoding ----------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(first=hnp.arrays(DTYPE, SHAPE), second=hnp.arrays(DTYPE, SHAPE), big_endian=st.booleans())
def test_the_quick_way_says_what_the_long_way_says(first: Any, second: Any, *, big_endian: bool) -> None:
    """For the same kind of input again, for another kind in between, and for views in another order."""
    codec = Codec()
    if big_endian:
        first = first.astype(first.dtype.newbyteorder(">"))
    for x in (first, first, second, first.T, first, np.ones_like(first), first[..., ::-1] if first.ndim else first):
        layout, payload = codec.encode("m", None, x, None)

        assert (layout, payload) == Codec().encode("m", None, x, None)
        (back,) = unpack(parse_layout(layout), None, payload)
        assert same(back, x.astype(x.dtype.newbyteorder("<")))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_is_laid_out_by_row(rows: int) -> None:
    """The leading axis is none of the layout's, and what was remembered of single rows is not used."""
    codec = Codec()
    x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    codec.encode("m", None, x, None)
    codec.encode("m", None, x, None)

    layout, payload = codec.encode("m", None, x, rows)

    assert parse_layout(layout).fields[0].shape == (4,)
    assert payload == x.tobytes()


def test_the_array_may_be_changed_after_a_small_one_was_encoded() -> None:
    """Its bytes were copied, on both ways."""
    codec, x = Codec(), np.zeros(4, np.float32)
    bodies = [codec.encode("m", None, x, None)[1] for _ in range(2)]
    x[:] = 1

    assert bodies == [bytes(16)] * 2


def test_a_large_array_travels_out_of_band_and_uncopied() -> None:
    """Every time: it must not be remembered as one for the head."""
    codec = Codec()
    x = np.zeros(INLINE_BYTES // 4 + 1, np.float32)

    for _ in range(3):
        _, payload = codec.encode("m", None, x, None)
        assert isinstance(payload, list)
        assert np.shares_memory(np.frombuffer(payload[0], np.float32), x)

    _, inline = codec.encode("m", None, x[:-1], None)
    assert isinstance(inline, bytes)


def test_a_dict_names_its_arrays() -> None:
    """In its own order."""
    arrays = {"x": np.zeros(4, np.float32), "n": np.array(3, np.int64)}

    layout, payload = Codec().encode("m", None, arrays, None)

    assert [field.name for field in parse_layout(layout).fields] == ["x", "n"]
    assert payload == bytes(16) + b"\x03" + bytes(7)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        *[(x, r"a \w+, expected .*; convert it with numpy\.asarray") for x in ([1.0, 2.0], 3.0, (1,))],
        (None, r"is None, expected .*; give the values"),
        ("text", r"a str, expected .*numpy\.frombuffer\(text\.encode\(\), numpy\.uint8\)"),
        *[(x, r"a \w+, expected .*numpy\.frombuffer") for x in (b"x", bytearray(b"x"), memoryview(b"x"))],
        ({"x": None}, "'x' is None, expected"),
    ],
)
def test_only_arrays_are_taken(x: Any, sentence: str) -> None:
    """Nothing is cast; the sentence says what makes an array of it."""
    with pytest.raises(InvalidArgument, match=sentence):
        Codec().encode("m", None, x, None)


def test_a_scalar_of_numpy_is_an_array_without_axes() -> None:
    """Alone, and by its name."""
    for x in (np.float32(3), {"x": np.float32(3)}):
        layout, payload = Codec().encode("m", None, x, None)  # type: ignore[arg-type]
        assert parse_layout(layout).fields[0].shape == ()
        assert payload == np.float32(3).tobytes()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(4), "input 'x' is FP64 .*model 'one' takes FP32"),
        (np.zeros((2, 2), np.float32), r"FP32 \[2, 2\].*model 'one' takes FP32 \[-1\]"),
        ({"z": np.zeros(4, np.float32)}, "has no input 'z'; it takes x"),
        (np.array([None]), "dtype object"),
        ({}, "0 arrays"),
    ],
)
def test_an_input_that_does_not_fit_is_told_at_the_call(x: Any, words: str) -> None:
    """Once the gateway has said what the model takes; also after fitting ones were remembered."""
    codec = knowing(("one", 1, ONE))
    for _ in range(2):
        codec.encode("one", None, np.zeros(4, np.float32), None)

        with pytest.raises(InvalidArgument, match=words):
            codec.encode("one", None, x, None)


def test_a_bare_array_does_not_fill_two_inputs() -> None:
    """The sentence names them."""
    with pytest.raises(InvalidArgument, match=r"takes 2 inputs \(x, n\), a bare array came"):
        knowing(("two", 1, TWO)).encode("two", None, np.zeros(4, np.float32), None)


def test_models_unknown_are_left_to_the_gateway() -> None:
    """Before the first WELCOME nothing is known, and anything that can travel is sent."""
    codec = Codec()

    assert codec.card("one", None) is None
    codec.encode("one", None, np.zeros(4), None)


def test_a_later_welcome_replaces_all_that_was_known() -> None:
    """What was remembered under the old signature is checked again."""
    codec = Codec()
    codec.encode("one", None, np.zeros(4), None)
    codec.encode("one", None, np.zeros(4), None)

    codec.learn([["one", 1, as_lists(ONE.to_wire()), 16, False, False]])

    with pytest.raises(InvalidArgument):
        codec.encode("one", None, np.zeros(4), None)
    assert codec.card("one", 1) == codec.card("one", None) == (ONE, 16, False, False)
    codec.learn([])
    assert codec.card("one", None) is None


def test_what_may_not_run_twice_is_remembered() -> None:
    """Until a model of that name and version says otherwise."""
    codec = Codec()
    assert codec.is_idempotent("one", None)
    codec.learn([["one", 1, as_lists(ONE.to_wire()), 16, False, False]])
    codec.learn([])
    assert not codec.is_idempotent("one", None)
    assert not codec.is_idempotent("one", 1)
    codec.learn([["one", 1, as_lists(ONE.to_wire()), 16, True, False]])
    assert codec.is_idempotent("one", None)


def test_without_a_version_the_latest_counts() -> None:
    """In whatever order they are listed."""
    codec = knowing(("m", 10, TWO), ("m", 9, ONE))

    assert codec.card("m", None) == codec.card("m", 10)
    assert codec.card("m", 9) == (ONE, 32, True, False)
    assert codec.card("m", 3) is None


def test_each_version_is_checked_by_its_own_signature() -> None:
    """What was remembered for the latest is not used for another."""
    codec = knowing(("m", 1, Signature((TensorSpec("x", "FP64", (4,)),), (TensorSpec("y"),))), ("m", 2, ONE))
    x = np.zeros(4, np.float32)
    for _ in range(2):
        codec.encode("m", None, x, None)

    with pytest.raises(InvalidArgument, match="takes FP64"):
        codec.encode("m", 1, x, None)


def test_a_signature_of_a_newer_release_is_skipped() -> None:
    """The worker checks it alone; the other models are known."""
    codec = Codec()
    codec.learn([["new", 1, [["x"]], 32, True, False], ["old", 1, as_lists(ONE.to_wire()), 32, True, False, "more"]])

    assert codec.card("new", None) is None
    assert codec.card("old", None) is not None


# Decoding ----------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(array=hnp.arrays(DTYPE, SHAPE), name=st.sampled_from(["y", "logits"]))
def test_one_output_is_a_bare_array(array: Any, name: str) -> None:
    """Every dtype and shape, the first time and when its layout is known; nobody can write into it."""
    codec = Codec()
    for _ in range(2):
        (out,) = codec.decode(ok({name: array}), None)

        assert isinstance(out, np.ndarray)
        assert same(out, array)
        assert not out.flags.writeable or array.dtype == bool or not array.size


@settings(max_examples=40)
@given(array=hnp.arrays(DTYPE, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)))
def test_a_batch_comes_back_with_its_leading_axis(array: Any) -> None:
    """One layout serves single rows and batches."""
    codec = Codec()
    reply = ok({"y": array}, len(array))
    for _ in range(2):
        assert same(codec.decode(reply, len(array))[0], array)
    assert same(codec.decode(ok({"y": np.asarray(array[0])}), None)[0], np.asarray(array[0]))


def test_several_outputs_are_a_dict() -> None:
    """By name, in the model's order."""
    arrays = {"scores": np.arange(3, dtype=np.float32), "label": np.array(7, np.int64)}

    (out,) = Codec().decode(ok(arrays), None)

    assert isinstance(out, dict)
    assert list(out) == ["scores", "label"]
    assert all(same(out[name], arrays[name]) for name in arrays)


@settings(max_examples=60)
@given(array=hnp.arrays(DTYPE, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)))
def test_each_call_of_a_block_gets_its_row(array: Any) -> None:
    """Read-only arrays, also where a row has no axis, no element, or booleans."""
    outputs = Codec().decode(block({"y": row} for row in np.atleast_1d(array)), None)

    assert all(
        isinstance(out, np.ndarray) and same(out, np.asarray(row)) for out, row in zip(outputs, array, strict=True)
    )
    assert not any(out.flags.writeable for out in outputs if isinstance(out, np.ndarray) and out.dtype != bool)


def test_several_outputs_of_a_block_are_a_dict_for_each_call() -> None:
    """Their payloads lie call by call."""
    calls = [{"scores": np.full(3, n, np.float32), "label": np.array(n, np.int64)} for n in range(4)]

    outputs = Codec().decode(block(calls), None)

    for out, arrays in zip(outputs, calls, strict=True):
        assert isinstance(out, dict)
        assert all(same(out[name], arrays[name]) for name in arrays)


def test_a_large_output_is_a_view_of_its_part() -> None:
    """Out of band there is nothing to copy."""
    array = np.arange(INLINE_BYTES, dtype=np.float32)
    reply = ok({"y": array})

    (out,) = Codec().decode(reply, None)

    assert isinstance(out, np.ndarray)
    assert same(out, array)
    assert np.shares_memory(out, array)
    assert not out.flags.writeable


@pytest.mark.parametrize("payload", [b"", bytes(15), bytes(17), [bytes(15)], [bytes(16), b""], []])
@pytest.mark.parametrize("rows", [None, 1])
def test_a_payload_of_another_size_is_refused(payload: Any, rows: int | None) -> None:
    """Neither too little nor too much is made into an array."""
    codec = Codec()
    reply = ok({"y": np.zeros(4, np.float32)})
    codec.decode(reply, None)
    reply[OUTPUT] = payload

    with pytest.raises(ProtocolError, match=r"payload|tensor"):
        codec.decode(reply, rows)


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x90", b"\x91\x93\xa1y\xa4FP99\x90"])
def test_a_layout_that_is_none_is_refused(raw: bytes) -> None:
    """Every time it comes."""
    codec = Codec()
    for _ in range(2):
        with pytest.raises(ProtocolError):
            codec.decode([1, 1, 0, raw, b"", "w1", 1, 1, 1, None, 1, 0, 0], None)


@pytest.mark.parametrize("status", [status for status in Status if status])
def test_each_status_raises_its_own_class(status: Status) -> None:
    """With all that the reply says of it."""
    error = Codec.error(failed(status, "queue", Executed.MAYBE, 250), b"its id")

    assert error.status is status
    assert "what happened" in str(error)
    assert error.request_id == b"its id"
    assert (error.attempts, error.executed, error.retry_after_ms) == (2, Executed.MAYBE, 250)
    if isinstance(error, DeadlineExceeded):
        assert error.where == "queue"


def test_an_error_may_name_no_place() -> None:
    """Then it is empty, not None."""
    error = Codec.error(failed(Status.DEADLINE_EXCEEDED))

    assert isinstance(error, DeadlineExceeded)
    assert error.where == ""


def test_what_is_remembered_is_bounded() -> None:
    """A peer that names ever new models and layouts fills no memory."""
    codec = Codec()
    for number in range(3_000):
        codec.encode(f"m{number}", None, np.zeros(1, np.float32), None)
        codec.decode(ok({f"y{number}": np.zeros(1, np.float32)}), None)

    assert len(codec._seen) <= 1_024
    assert len(codec._results) <= 1_024


def test_ready_body_is_checked_as_arrays_are() -> None:
    """Against the signature that the last WELCOME told, under the layout that the first one of its kind had."""
    codec = Codec()
    codec.learn([["one", 1, [[["x", "FP32", [-1]]], [["y", "FP32", [-1]]]], 8, True, False]])
    x = np.arange(4, dtype=np.float32)
    layout, payload = codec.encode("one", None, x, None)
    copy = bytes(bytearray(layout))

    first = codec.check_body("one", None, layout, x.tobytes(), None)
    again = codec.check_body("one", None, copy, [x.tobytes()], None)

    assert first == (layout, payload) == again
    assert again[0] is first[0]
    for wrong in (layout_of({"": x.astype(np.float64)}, None).raw, layout_of({"z": x}, None).raw):
        with pytest.raises(InvalidArgument, match="model 'one'"):
            codec.check_body("one", None, wrong, bytes(32), None)
    codec.learn([["one", 1, [[["x", "INT8", [-1]]], [["y", "FP32", [-1]]]], 8, True, False]])
    with pytest.raises(InvalidArgument, match="takes INT8"):
        codec.check_body("one", None, layout, x.tobytes(), None)


def test_large_ready_body_is_cut_into_its_tensors() -> None:
    """Without a copy; of several rows each tensor has all of them."""
    arrays = {"a": np.ones((2, 5_000), np.float32), "b": np.zeros((2, 3), np.int8)}
    layout, packed = Codec().encode("m", None, arrays, 2)
    whole = b"".join(array.tobytes() for array in arrays.values())

    _, payload = Codec().check_body("m", None, layout, whole, 2)

    assert isinstance(payload, list)
    assert [bytes(part) for part in payload] == [bytes(part) for part in packed]
    assert all(isinstance(part, memoryview) and part.obj is whole for part in payload)
