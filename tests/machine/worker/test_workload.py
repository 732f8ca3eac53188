"""The worker: exactly one reply for each tag, whatever becomes of the request."""

from __future__ import annotations

import pytest

from tests.machine.worker.playbook import NO, YES, Shift, asks, layout
from zmqinfer.errors import Status
from zmqinfer.policy.batching import BatchLimits
from zmqinfer.records import (
    BATCH_ROWS,
    COMPUTE_US,
    OUTPUT,
    PLACES,
    QUEUE_US,
    RAN,
    RESULT,
    SERVED_VERSION,
    STATUS,
    TAG,
    WORKER,
    Kind,
)


def test_requests_of_one_layout_run_together() -> None:
    """And each gets its own reply, which says who served it, in which batch and how long that took."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, *[asks(tag) for tag in (7, 8, 9)])
    shift.now += 0.002

    (batch,) = shift.begins()
    shift.runs(batch, compute_s=0.004)

    replies = shift.said(Kind.REPLY)
    assert [record[TAG] for record in replies] == [7, 8, 9]
    first = replies[0]
    assert (first[STATUS], first[RESULT], first[OUTPUT]) == (Status.OK, b"layout", b"yyyy")
    assert (first[WORKER], first[SERVED_VERSION], first[RAN], first[BATCH_ROWS]) == ("w1", 1, YES, 3)
    assert (first[QUEUE_US], first[COMPUTE_US]) == (pytest.approx(2_000, abs=2), 4_000)
    shift.says_nothing()


def test_other_layouts_run_in_other_batches() -> None:
    """Names that mean the same input and the same shape are one layout."""
    shift = Shift().welcomed()
    shift.hears(
        0,
        Kind.REQUEST,
        asks(1),
        asks(2, raw=layout(name="x")),
        asks(3, raw=layout(shape=(2,)), payload=bytes(8)),
    )

    batches = [shift.begins(), []]
    while batches[-1] or batches[-2]:
        for batch in batches[-1] or batches[-2]:
            shift.runs(batch)
        batches = [[], shift.begins()]

    assert {record[TAG]: record[BATCH_ROWS] for record in shift.said(Kind.REPLY)} == {1: 2, 2: 2, 3: 1}


def test_batch_has_no_more_rows_than_the_model_takes() -> None:
    """The rest runs next."""
    shift = Shift(limits=BatchLimits(max_rows=4)).welcomed()
    shift.hears(0, Kind.REQUEST, *[asks(tag, rows=3 if tag == 1 else 1) for tag in range(6)])

    (batch,) = shift.begins()
    assert batch.rows <= 4
    assert shift.begins() == []
    shift.runs(batch).works()

    assert sorted(record[TAG] for record in shift.said(Kind.REPLY)) == list(range(6))


def test_input_in_parts_is_taken() -> None:
    """One buffer for each tensor."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(1, payload=[memoryview(bytes(4))])).works()

    assert shift.says(Kind.REPLY)[STATUS] == Status.OK


REFUSED = {
    "unknown model": (asks(66, "other"), Status.NOT_FOUND, "'other'"),
    "unknown version": (asks(66, version=2), Status.NOT_FOUND, "version 2"),
    "too many rows": (asks(66, rows=33), Status.TOO_LARGE, "33 rows"),
    "payload too short": (asks(66, payload=b"123"), Status.INVALID_ARGUMENT, "3 bytes"),
    "payload too long": (asks(66, payload=b"12345"), Status.INVALID_ARGUMENT, "5 bytes"),
    "payload of other rows": (asks(66, rows=2, payload=bytes(4)), Status.INVALID_ARGUMENT, "4 bytes"),
    "empty payload": (asks(66, payload=b""), Status.INVALID_ARGUMENT, "0 bytes"),
    "parts of another size": (asks(66, payload=[memoryview(b"123")]), Status.INVALID_ARGUMENT, "3 bytes"),
    "too many parts": (
        asks(66, payload=[memoryview(b"12"), memoryview(b"34")]),
        Status.INVALID_ARGUMENT,
        "payload",
    ),
    "wrong dtype": (asks(66, raw=layout("<f8"), payload=bytes(8)), Status.INVALID_ARGUMENT, "FP64"),
    "wrong rank": (asks(66, raw=layout(shape=(1, 1))), Status.INVALID_ARGUMENT, "[1, 1]"),
    "wrong name": (asks(66, raw=layout(name="z")), Status.INVALID_ARGUMENT, "'z'"),
    "no layout": (asks(66, raw=b""), Status.INVALID_ARGUMENT, "layout"),
    "broken layout": (asks(66, raw=b"\xc1"), Status.INVALID_ARGUMENT, "layout"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_request_that_does_not_fit_is_refused_alone(case: str) -> None:
    """Its neighbours in the bundle run, and get their own answers."""
    record, status, words = REFUSED[case]
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(1), record, asks(2))

    refused = shift.says(Kind.REPLY)
    shift.works()

    assert (refused[TAG], refused[STATUS], refused[RAN]) == (66, status, NO)
    assert words in refused[RESULT]
    assert [(record[TAG], record[STATUS], record[BATCH_ROWS]) for record in shift.said(Kind.REPLY)] == [
        (1, 0, 2),
        (2, 0, 2),
    ]


def test_failed_outcome_is_told_as_it_is() -> None:
    """It ran: `executed` is yes."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(1))

    shift.runs(shift.begins()[0], (1, Status.MODEL_ERROR, "ValueError: bad crop"))

    answer = shift.says(Kind.REPLY)
    assert (answer[STATUS], answer[RESULT], answer[OUTPUT]) == (Status.MODEL_ERROR, "ValueError: bad crop", "model")
    assert answer[RAN] == YES


def test_request_whose_time_is_up_before_its_batch_does_not_run() -> None:
    """DEADLINE_EXCEEDED, from the batch."""
    shift = Shift(limits=BatchLimits(is_timed=True, max_wait_s=10.0)).welcomed()
    shift.hears(0, Kind.REQUEST, asks(1, budget_s=30.0)).begins()
    shift.hears(0, Kind.REQUEST, asks(2, budget_s=0.0), asks(3, budget_s=1.0), gap=2.0)

    shift.begins()

    answers = shift.said(Kind.REPLY)
    assert [(record[TAG], record[STATUS], record[OUTPUT], record[RAN]) for record in answers] == [
        (2, Status.DEADLINE_EXCEEDED, "batch", NO),
        (3, Status.DEADLINE_EXCEEDED, "batch", NO),
    ]


def test_cancel_before_the_run_gives_the_credit_back_at_once() -> None:
    """With the one reply that the tag is owed."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(1), asks(2)).hears(0, Kind.CANCEL, [1, 1], [99, 1])

    answer = shift.says(Kind.REPLY)
    shift.hears(0, Kind.CANCEL, [1, 1]).works()

    assert (answer[TAG], answer[STATUS], answer[RAN]) == (1, Status.CANCELLED, NO)
    assert shift.says(Kind.REPLY)[TAG] == 2


def test_cancel_of_a_running_request_waits_for_its_batch() -> None:
    """It cannot be stopped; its reply comes with the batch's."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(1))
    (batch,) = shift.begins()

    shift.hears(0, Kind.CANCEL, [1, 1]).says_nothing()
    shift.runs(batch)

    assert shift.says(Kind.REPLY)[STATUS] == Status.OK


def test_cancel_by_another_gateway_is_none() -> None:
    """Tags are hop by hop: gateways may use the same."""
    shift = Shift(gateways=2).welcomed().hears(0, Kind.REQUEST, asks(1)).hears(1, Kind.CANCEL, [1, 1])

    shift.works()

    assert shift.says(Kind.REPLY)[STATUS] == Status.OK
    assert shift.said(Kind.REPLY, 1) == []


def test_requests_of_several_gateways_share_batches_and_each_gets_its_own_replies() -> None:
    """Even under the same tag."""
    shift = Shift(gateways=2).welcomed().hears(0, Kind.REQUEST, asks(5)).hears(1, Kind.REQUEST, asks(5), asks(6))

    (batch,) = shift.begins()
    shift.runs(batch)

    assert [record[TAG] for record in shift.said(Kind.REPLY, 0)] == [5]
    assert [record[TAG] for record in shift.said(Kind.REPLY, 1)] == [5, 6]


def test_tag_that_is_used_already_is_not_taken_again() -> None:
    """For calls that are here: the first request keeps it, and the worker goes on; other parts of a block are taken."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(1, places=0b1010), asks(2))

    shift.hears(
        0, Kind.REQUEST, asks(1, places=0b1000), asks(2), asks(1, places=0b0110), asks(1, places=0b0101)
    ).works()

    assert [record[: PLACES + 1] for record in shift.said(Kind.REPLY)] == [[1, 0b1010], [2, 1], [1, 0b0101]]
    assert (shift.machine.held, shift.machine.tasks.dropped) == (0, 4)


def test_block_is_divided_where_the_batch_is_full() -> None:
    """Its first calls run at once, the others next, and each part has its own reply."""
    shift = Shift(limits=BatchLimits(max_rows=8)).welcomed()
    shift.hears(0, Kind.REQUEST, asks(1), asks(2), asks(3, places=0b11_0111_1001_0101), asks(4, places=0b111))

    batches = shift.begins()
    shift.runs(batches[0]).works()

    assert [task.calls for task in batches[0].tasks] == [1, 1, 6]
    answers = [(record[TAG], record[PLACES], record[OUTPUT]) for record in shift.said(Kind.REPLY)]
    assert answers == [
        (1, 1, b"yyyy"),
        (2, 1, b"yyyy"),
        (3, 0b00_0011_1001_0101, b"yyyy" * 6),
        (3, 0b11_0100_0000_0000, b"yyyy" * 3),
        (4, 0b111, b"yyyy" * 3),
    ]


def test_result_that_a_gateway_would_not_take_is_said_instead() -> None:
    """Sent all the same it would cost the connection, and the other calls with it."""
    shift = Shift()
    shift.hears(0, Kind.WELCOME, [bytes(16), "gateway", 500, 2**20, []]).hears(0, Kind.REQUEST, asks(1), asks(2))
    (batch,) = shift.begins()
    most = 2 * 2**20

    shift.runs(batch, (1, b"layout", [bytes(most + 1)]), (1, b"layout", [bytes(most)]))

    large, fits = shift.said(Kind.REPLY)
    assert (large[STATUS], large[RAN]) == (Status.TOO_LARGE, YES)
    assert "the result has 2,097,153 bytes, gateway tcp://gateway0 takes 2,097,152" in large[RESULT]
    assert fits[STATUS] == Status.OK
