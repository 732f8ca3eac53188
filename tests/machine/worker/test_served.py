"""What a model takes, and what it has earned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zmqinfer.errors import InvalidArgument, ProtocolError, TooLarge
from zmqinfer.machine.worker.served import ModelCard, ServedModel
from zmqinfer.policy.batching import BatchLimits
from zmqinfer.records import Record
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import layout_of

TWO = Signature((TensorSpec("a", "FP32", (-1,)), TensorSpec("b", "INT64", ())), (TensorSpec("y", "FP32", (1,)),))


def model(max_rows: int = 32) -> ServedModel:
    return ServedModel(0, ModelCard("m", 1, TWO, BatchLimits(max_rows=max_rows)))


def request(arrays: dict[str, Any], *, rows: int = 1, places: int = 1, payload: Any = None) -> Record:
    raw = layout_of(arrays, None).raw
    body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values()) * rows
    return [1, places, b"i", "m", 1, None, 1_000, 4, 1, None, rows, raw, body if payload is None else payload]


A, B = np.zeros(3, np.float32), np.asarray(7)


def test_inputs_that_differ_in_order_alone_are_stacked_alike_but_not_together() -> None:
    """Equal shapes share one object, by which requests batch; another order is another way to unpack."""
    served = model()

    first, size = served.fit(request({"a": A, "b": B}))
    again, _ = served.fit(request({"a": A + 1, "b": B}, rows=2))
    turned, _ = served.fit(request({"b": B, "a": A}))
    wider, _ = served.fit(request({"a": np.zeros(4, np.float32), "b": B}))

    assert size == 20
    assert again is first
    assert turned.order == (1, 0)
    assert len({first, turned, wider}) == 3


@pytest.mark.parametrize(
    ("record", "error", "words"),
    [
        (request({"a": A}), InvalidArgument, "b"),
        (request({"a": A.astype(float), "b": B}), InvalidArgument, "FP64"),
        (request({"a": A, "b": B}, payload=bytes(19)), InvalidArgument, "19 bytes, 1 rows of its layout have 20"),
        (request({"a": A, "b": B}, payload=[bytes(8), bytes(12)]), InvalidArgument, "payload"),
        ([*request({"a": A, "b": B})[:11], b"\xff", bytes(20)], ProtocolError, "layout"),
        (request({"a": A, "b": B}, rows=33), TooLarge, "33 rows, model 'm' takes 32"),
    ],
)
def test_what_does_not_fit_is_said(record: Record, error: type[Exception], words: str) -> None:
    """With what came and what was expected."""
    with pytest.raises(error, match=words):
        model().fit(record)


def test_block_may_have_more_calls_than_a_batch_has_rows() -> None:
    """It can be divided, one call cannot."""
    bound, size = model(max_rows=8).fit(request({"a": A, "b": B}, rows=20, places=2**20 - 1))

    assert size == 20 * bound.layout.row_bytes


def test_credits_are_two_batches_and_more_for_a_fast_model() -> None:
    """As many rows as it runs in 5 ms, with a bound."""
    slow, fast, fastest = model(), model(), model()
    for _ in range(100):
        slow.learn(32, 0.010)
        fast.learn(32, 0.000_499)
        fastest.learn(32, 0.000_001)

    assert (model().earned_credits(), slow.earned_credits(), fast.earned_credits()) == (64, 64, 320)
    assert fastest.earned_credits() == 1_024


def test_short_is_a_model_whose_last_batches_all_were() -> None:
    """A long one is remembered for some dozens that are shorter."""
    served = model()
    for _ in range(49):
        served.learn(1, 0.000_1)
    assert not served.is_short()

    served.learn(1, 0.000_1)
    assert served.is_short()

    served.learn(1, 1.0)
    for _ in range(50):
        served.learn(1, 0.000_1)
    assert not served.is_short()
    for _ in range(50):
        served.learn(1, 0.000_1)
    assert served.is_short()
