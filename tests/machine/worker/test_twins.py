"""What is known of requests by their ids, and what a worker makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.machine.worker.playbook import NO, YES, Shift, X, asks, layout
from zmqinfer.errors import Status
from zmqinfer.machine.worker import twins
from zmqinfer.machine.worker.served import ModelCard
from zmqinfer.machine.worker.task import Bound, Task
from zmqinfer.machine.worker.twins import Twins, is_alike, outcome_of
from zmqinfer.policy.batching import BatchLimits
from zmqinfer.records import (
    OUTPUT,
    PLACES,
    RAN,
    STATUS,
    TAG,
    Kind,
    Record,
)
from zmqinfer.tensor import Payload, layout_of, parse_layout

RAW = layout_of({"": np.zeros(1, np.float32)}, None).raw
BOUND = Bound(parse_layout(RAW), (0,))
NOW = 1_000.0


def task(places: int, payload: Payload) -> Task:
    """A request for some calls of one block."""
    calls = places.bit_count()
    record: Record = [7, places, b"id", "m", 1, None, 0, 4, 1, None, calls, RAW, payload]
    return Task(0, record, BOUND, 4 * calls, NOW + 1, NOW)


def test_parts_of_a_block_are_no_twins() -> None:
    """Only the same call is one, wherever the block was divided."""
    twins = Twins()
    first, second = task(0b0101, b"aaaacccc"), task(0b0010, b"bbbb")
    assert twins.begin(first)
    assert twins.begin(second)
    assert not twins.begin(task(0b1110, b"bbbbccccdddd"))
    assert twins.find(task(0b0100, b"cccc")) is first
    assert twins.find(task(0b1000, b"dddd")) is None
    twins.forget(first)
    twins.forget(second)
    twins.check(set())
    assert twins.begin(task(0b0100, b"cccc"))


def test_answers_are_told_apart_within_a_block() -> None:
    """And each has the input that it belongs to."""
    twins = Twins()
    one = task(0b11010, b"aaaabbbbcccc")
    twins.begin(one)
    twins.keep(one, [(1, RAW, b"AAAA"), (2, RAW, b"BBBBCCCC")], (3, 0, 0), NOW)
    twins.check(set())
    again = task(0b10000, b"cccc")
    found = twins.find(again)
    assert isinstance(found, tuple)
    assert outcome_of(found, again) == (1, RAW, b"CCCC")
    assert is_alike(again, found)
    assert not is_alike(task(0b10000, b"bbbb"), found)
    twins.trim(NOW + 61)
    assert (twins.count, twins.bytes, twins.find(again)) == (0, 0, None)


def test_large_inputs_are_compared_by_their_ends() -> None:
    """And by their sizes, so that none is kept."""
    whole = bytes(100_000)
    twins = Twins()
    one = task(1, [whole])
    twins.begin(one)
    twins.keep(one, [(1, RAW, b"AAAA")], (1, 0, 0), NOW)
    found = twins.find(one)
    assert isinstance(found, tuple)
    assert twins.bytes < 1_000
    assert is_alike(task(1, [bytes(100_000)]), found)
    assert not is_alike(task(1, [bytes(99_999)]), found)
    assert not is_alike(task(1, [whole[:-1] + b"x"]), found)
    assert not is_alike(task(1, whole), found)


def with_id(record: Record, other: Record) -> Record:
    """The same request under another one's id."""
    return [*record[:2], other[2], *record[3:]]


def test_running_twin_is_joined_and_a_finished_one_answered_again() -> None:
    """One execution and a reply for each tag, through whichever gateway it was asked for."""
    shift = Shift(gateways=2).welcomed()
    first = asks(1, places=0b1011)
    shift.hears(0, Kind.REQUEST, first)
    (batch,) = shift.begins()
    shift.hears(1, Kind.REQUEST, with_id(asks(2, places=0b1011), first))
    assert not shift.begins()

    answers = [(1, b"layout", b"aaaa"), (2, b"layout", b"bbbbcccc")]
    shift.runs(batch, *answers)
    shift.hears(1, Kind.REQUEST, with_id(asks(3, places=0b1010), first))

    replies = [
        (record[TAG], record[PLACES], record[OUTPUT]) for number in (0, 1) for record in shift.said(Kind.REPLY, number)
    ]
    assert replies == [
        (1, 0b0001, b"aaaa"),
        (1, 0b1010, b"bbbbcccc"),
        *[(2, 0b0001, b"aaaa"), (2, 0b0010, b"bbbb"), (2, 0b1000, b"cccc")],
        *[(3, 0b0010, b"bbbb"), (3, 0b1000, b"cccc")],
    ]
    assert not shift.begins()
    assert (shift.machine.tasks.joined, shift.machine.tasks.replayed, shift.machine.held) == (3, 5, 0)


def test_session_lost_while_it_ran_loses_no_answer() -> None:
    """Its gateway, or another one, asks again and gets what was computed meanwhile."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(32))
    (batch,) = shift.begins()
    shift.hears(0, Kind.DISCONNECT, ["no session", ""]).welcomed()
    shift.runs(batch)
    assert not shift.said(Kind.REPLY)

    shift.hears(0, Kind.REQUEST, with_id(asks(640), asks(32)))

    assert [(record[TAG], record[RAN]) for record in shift.said(Kind.REPLY)] == [(640, YES)]


def test_caller_who_goes_leaves_its_twin_waiting() -> None:
    """Cancelled, or too late: who came second runs then, and ends on its own."""
    shift = Shift(gateways=2).welcomed().hears(0, Kind.REQUEST, asks(32))
    (batch,) = shift.begins()
    for tag, budget_s in ((64, 30.0), (96, 0.5)):
        shift.hears(0, Kind.REQUEST, asks(tag, budget_s=budget_s))
        shift.hears(1, Kind.REQUEST, with_id(asks(tag), asks(tag)))
    shift.hears(0, Kind.CANCEL, [64, 1])
    shift.now += 1.0

    shift.runs(batch).works()

    replies = [(record[TAG], record[STATUS]) for number in (0, 1) for record in shift.said(Kind.REPLY, number)]
    assert sorted(replies) == [
        (32, Status.OK), (64, Status.OK), (64, Status.CANCELLED), (96, Status.OK), (96, Status.DEADLINE_EXCEEDED),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        asks(640, payload=b"else"),
        asks(640, model="n"),
        asks(640, raw=layout(name="x")),
        asks(640, rows=2, raw=layout()),
    ],
)
@pytest.mark.parametrize("is_finished", [False, True])
def test_an_id_given_to_another_call_is_a_conflict(other: Record, is_finished: bool) -> None:
    """To another input, model, layout or number of rows; the first call is not disturbed."""
    shift = Shift(*(ModelCard(name, 1, X, BatchLimits()) for name in "mn")).welcomed().hears(0, Kind.REQUEST, asks(32))
    if is_finished:
        shift.works()

    shift.hears(0, Kind.REQUEST, with_id(other, asks(32))).works()

    replies = {record[TAG]: (record[STATUS], record[RAN]) for record in shift.said(Kind.REPLY)}
    assert replies == {32: (Status.OK, YES), 640: (Status.ID_CONFLICT, NO)}


def test_answers_are_kept_for_a_minute() -> None:
    """Then a repeated call runs again."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(32)).works()
    shift.waits(61.0).welcomed()

    shift.hears(0, Kind.REQUEST, with_id(asks(640), asks(32)))

    assert len(shift.begins()) == 1
    assert shift.machine.tasks.replayed == 0


def test_answers_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and in bytes: the oldest go first."""
    for bound, value in (("MAX_KEPT", 2), ("MAX_KEPT_BYTES", 1_700)):
        with monkeypatch.context() as patched:
            patched.setattr(twins, bound, value)
            shift = Shift(limits=BatchLimits(max_rows=1)).welcomed()
            for tag in (32, 64, 96):
                shift.hears(0, Kind.REQUEST, asks(tag)).works()
            again = [with_id(asks(640 + tag), asks(tag)) for tag in (96, 64, 32)]
            shift.hears(0, Kind.REQUEST, *again)
            assert (shift.machine.tasks.replayed, shift.machine.held) == (2, 1)
