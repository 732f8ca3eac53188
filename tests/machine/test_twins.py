"""What is known of requests by their ids; what a worker makes of that is in test_worker.py."""

from __future__ import annotations

import numpy as np

from zmqinfer.machine.task import Bound, Task
from zmqinfer.machine.twins import Answer, Twins, is_alike
from zmqinfer.records import Record
from zmqinfer.tensor import Payload, layout_of, parse_layout

RAW = layout_of({"": np.zeros(1, np.float32)}, None).raw
BOUND = Bound(parse_layout(RAW), (0,))
NOW = 1_000.0


def task(place: int, payload: Payload, calls: int = 1) -> Task:
    """A request for calls of one block, from this place on."""
    record: Record = [32 + place, calls, b"id" + bytes([place]), "m", 1, None, 0, 4, 1, None, calls, RAW, payload]
    return Task(0, record, BOUND, 4 * calls, NOW + 1, NOW)


def test_parts_of_a_block_are_no_twins() -> None:
    """Only the same call is one, wherever the block was divided."""
    twins = Twins()
    first, second = task(0, b"aaaabbbb", 2), task(2, b"cccc")
    assert twins.begin(first)
    assert twins.begin(second)
    assert not twins.begin(task(1, b"bbbbccccdddd", 3))
    assert twins.find(task(1, b"bbbb")) is first
    assert twins.find(task(3, b"dddd")) is None
    twins.forget(first)
    twins.forget(second)
    twins.check(set())
    assert twins.begin(task(1, b"bbbb"))


def test_answers_are_told_apart_within_a_block() -> None:
    """And each has the input that it belongs to."""
    twins = Twins()
    one = task(0, b"aaaabbbbcccc", 3)
    twins.begin(one)
    twins.keep(one, [(1, RAW, b"AAAA"), (2, RAW, b"BBBBCCCC")], 3, 0, 0, NOW)
    twins.check(set())
    again = task(2, b"cccc")
    found = twins.find(again)
    assert isinstance(found, Answer)
    assert found.of(2) == (1, RAW, b"CCCC")
    assert is_alike(again, found)
    assert not is_alike(task(2, b"bbbb"), found)
    twins.trim(NOW + 61)
    assert (twins.count, twins.bytes, twins.find(again)) == (0, 0, None)


def test_large_inputs_are_compared_by_their_ends() -> None:
    """And by their sizes, so that none is kept."""
    whole = bytes(100_000)
    twins = Twins()
    one = task(0, [whole])
    twins.begin(one)
    twins.keep(one, [(1, RAW, b"AAAA")], 1, 0, 0, NOW)
    found = twins.find(one)
    assert isinstance(found, Answer)
    assert twins.bytes < 1_000
    assert is_alike(task(0, [bytes(100_000)]), found)
    assert not is_alike(task(0, [bytes(99_999)]), found)
    assert not is_alike(task(0, [whole[:-1] + b"x"]), found)
    assert not is_alike(task(0, whole), found)
