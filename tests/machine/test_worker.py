"""The worker: batches from requests, and exactly one reply for each tag."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine.worker_playbook import NO, YES, Shift, X, asks, layout
from zmqinfer.config import WorkerSettings
from zmqinfer.errors import Status
from zmqinfer.machine.served import ModelCard
from zmqinfer.machine.task import Batch
from zmqinfer.policy.batching import BatchLimits
from zmqinfer.records import (
    BATCH_ROWS,
    CALLS,
    COMPUTE_US,
    MAX_TAGS,
    OUTPUT,
    PAYLOAD,
    QUEUE_US,
    RAN,
    RESULT,
    SERVED_VERSION,
    STATUS,
    TAG,
    WORKER,
    Kind,
)

# Joining ---------------------------------------------------------------------------------------------


def test_worker_says_ready_with_its_models() -> None:
    """Name, weight in thousandths, and each model's signature, largest batch, credits and idempotence."""
    cards = [
        ModelCard("m", 1, X, BatchLimits(max_rows=16)),
        ModelCard("n", 3, X, BatchLimits(max_rows=4), idempotent=False),
    ]
    shift = Shift(*cards, settings=WorkerSettings(weight=2.5))

    session, name, agent, weight, host, models = shift.says(Kind.READY)

    assert (session, name, agent, weight, host) == (b"0123456789abcdef", "w1", "test", 2_500, None)
    assert models == [
        ["m", 1, [[["x", "FP32", [-1]]], [["y", "FP32", [-1]]]], 16, 32, True, False],
        ["n", 3, [[["x", "FP32", [-1]]], [["y", "FP32", [-1]]]], 4, 8, False, False],
    ]


def test_requests_before_welcome_are_not_taken() -> None:
    """They belong to an earlier life."""
    shift = Shift().hears(0, Kind.REQUEST, asks(1))

    assert shift.machine.held == 0
    assert shift.said(Kind.REPLY) == []


def test_unanswered_ready_is_repeated() -> None:
    """It may have gone into a connection that was just breaking."""
    shift = Shift()
    shift.said(Kind.READY)

    assert len(shift.waits(1.6).said(Kind.READY)) == 3
    assert not shift.machine.was_welcome
    assert shift.welcomed().machine.was_welcome


@pytest.mark.parametrize(
    ("reason", "is_end"), [("wrong door", True), ("too many workers", True), ("protocol", True), ("drain", False)]
)
def test_gateway_that_refuses_a_newcomer_ends_it(reason: str, is_end: bool) -> None:
    """Repeating what was refused would be refused again; the sentence says why."""
    shift = Shift().hears(0, Kind.DISCONNECT, [reason, "because"])

    assert bool(shift.machine.ended_by) is is_end
    assert not is_end or shift.machine.ended_by == "because (gateway tcp://gateway0)"


def test_replaced_worker_must_exit_and_say_why() -> None:
    """Another one has its name now."""
    shift = Shift().welcomed().hears(0, Kind.DISCONNECT, ["replaced", "another worker took the name"])

    assert "another worker took the name" in shift.machine.ended_by


def test_unknown_reason_from_a_known_gateway_is_reported_only() -> None:
    """A newer gateway may have more to say."""
    shift = Shift().welcomed().hears(0, Kind.DISCONNECT, ["weather", "rain"])

    assert shift.machine.ended_by == ""
    assert shift.machine.events[-1][0] == "gateway says"


# Requests --------------------------------------------------------------------------------------------


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
    """Not even within a block: the first request keeps it, and the worker goes on."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(32, calls=4), asks(64))

    shift.hears(0, Kind.REQUEST, asks(32), asks(34), asks(64), asks(33, calls=8)).works()

    assert [(record[TAG], record[CALLS]) for record in shift.said(Kind.REPLY)] == [(32, 4), (64, 1)]
    assert (shift.machine.held, shift.machine.dropped) == (0, 11)


def test_block_is_divided_where_the_batch_is_full() -> None:
    """Its first calls run at once, the others next, and each part has its own reply."""
    shift = Shift(limits=BatchLimits(max_rows=8)).welcomed()
    shift.hears(0, Kind.REQUEST, asks(1), asks(2), asks(32, calls=10), asks(64, calls=3))

    batches = shift.begins()
    shift.runs(batches[0]).works()

    assert [task.calls for task in batches[0].tasks] == [1, 1, 6]
    answers = [(record[TAG], record[CALLS], record[OUTPUT]) for record in shift.said(Kind.REPLY)]
    assert answers == [
        (1, 1, b"yyyy"),
        (2, 1, b"yyyy"),
        (32, 6, b"yyyy" * 6),
        (38, 4, b"yyyy" * 4),
        (64, 3, b"yyyy" * 3),
    ]


def test_outcomes_of_a_block_may_differ_from_call_to_call() -> None:
    """One of three raised: three replies, each for its own calls."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(32, calls=4))

    shift.runs(shift.begins()[0], (1, b"layout", b"aaaa"), (1, Status.MODEL_ERROR, "no"), (2, b"layout", b"ccccdddd"))

    answers = [(record[TAG], record[CALLS], record[STATUS], record[OUTPUT]) for record in shift.said(Kind.REPLY)]
    assert answers == [(32, 1, 0, b"aaaa"), (33, 1, 12, "model"), (34, 2, 0, b"ccccdddd")]


def test_cancelled_call_of_a_block_does_not_run() -> None:
    """The calls around it do, in their places."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(32, calls=5, payload=b"aaaabbbbccccddddeeee"))

    shift.hears(0, Kind.CANCEL, [34, 1])

    cancelled = shift.says(Kind.REPLY)
    assert (cancelled[TAG], cancelled[CALLS], cancelled[STATUS]) == (34, 1, Status.CANCELLED)
    (batch,) = shift.begins()
    assert [(task.tag, task.record[PAYLOAD]) for task in batch.tasks] == [(32, b"aaaabbbb"), (35, b"ddddeeee")]


@settings(max_examples=60)
@given(st.data())
def test_each_call_gets_exactly_one_reply(data: st.DataObject) -> None:
    """Whatever becomes of it: run, refused, expired, cancelled, alone or in a block."""
    shift = Shift(limits=BatchLimits(max_rows=4)).welcomed()
    running: list[Batch] = []
    asked: list[int] = []
    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(("ask", "ask", "cancel", "begin", "finish", "wait"))):
            case "ask":
                tag, calls = 32 * (len(asked) + 1), data.draw(st.sampled_from((1, 1, 2, 3, 4)))
                rows, budget_s = data.draw(st.integers(1, 5)), data.draw(st.sampled_from((0.0, 0.01, 5.0)))
                rows = rows if calls == 1 else calls
                payload = data.draw(st.sampled_from((None, None, b"bad!" + bytes(4 * (calls - 1)), b"x" * calls)))
                asked += range(tag, tag + calls)
                shift.hears(0, Kind.REQUEST, asks(tag, rows=rows, budget_s=budget_s, payload=payload, calls=calls))
            case "cancel" if asked:
                calls = data.draw(st.sampled_from((1, 2, 4)))
                shift.hears(0, Kind.CANCEL, [data.draw(st.sampled_from(asked)), calls])
            case "begin":
                running += shift.begins()
            case "finish" if running:
                shift.runs(running.pop(0))
            case _:
                shift.now += data.draw(st.sampled_from((0.001, 0.02)))
    for batch in running:
        shift.runs(batch)
    shift.works()
    shift.now += 5.0
    shift.works()

    replied = [record[TAG] + n for record in shift.said(Kind.REPLY) for n in range(record[CALLS])]
    assert sorted(replied) == sorted(asked)
    assert shift.machine.held == 0


# Sessions --------------------------------------------------------------------------------------------


def test_gateway_that_forgot_the_worker_is_greeted_anew_and_owed_nothing() -> None:
    """What it gave us is for others now: not run if that can be helped, and never answered."""
    shift = Shift(limits=BatchLimits(max_rows=1)).welcomed().hears(0, Kind.REQUEST, asks(1), asks(2))
    batches = shift.begins()

    shift.hears(0, Kind.DISCONNECT, ["no session", "greet"]).hears(0, Kind.DISCONNECT, ["no session", "greet"])

    shift.says(Kind.READY)
    assert shift.machine.held == 0
    for batch in batches:
        shift.runs(batch)
    assert shift.begins() == []
    assert shift.said(Kind.REPLY) == []
    assert shift.machine.dropped == 2


def test_one_gateways_session_is_not_the_others() -> None:
    """Only what the lost one gave is dropped."""
    shift = Shift(gateways=2).welcomed().hears(0, Kind.REQUEST, asks(1)).hears(1, Kind.REQUEST, asks(2))
    (batch,) = shift.begins()

    shift.hears(0, Kind.DISCONNECT, ["no session", ""]).runs(batch)

    assert shift.said(Kind.REPLY, 0) == []
    assert shift.says(Kind.REPLY, 1)[TAG] == 2


def test_silent_gateway_is_greeted_anew() -> None:
    """After three heartbeats, with the same session id."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(1))
    shift.begins()

    shift.waits(1.4)
    assert shift.said(Kind.READY) == []
    shift.waits(0.7)

    assert shift.said(Kind.READY)[0][0] == b"0123456789abcdef"
    assert shift.machine.held == 0
    assert ("gateway silent", {"gateway": "tcp://gateway0"}) in shift.machine.events


def test_worker_beats_for_each_model() -> None:
    """Credits, load over all gateways, how long the running batch has run, and which tags are in it."""
    cards = [ModelCard("m", 1, X, BatchLimits(max_rows=2)), ModelCard("n", 1, X, BatchLimits(max_rows=8))]
    shift = Shift(*cards, gateways=2).welcomed()
    shift.hears(0, Kind.REQUEST, asks(1), asks(2), asks(3)).hears(1, Kind.REQUEST, asks(4))
    shift.begins()

    shift.waits(0.55)

    first, second = shift.said(Kind.HEARTBEAT, 0)
    assert first == [0, 2, 4, 500_000, [1, 2]]
    assert second == [1, 8, 0, None, []]
    assert shift.said(Kind.HEARTBEAT, 1)[0] == [0, 2, 4, 500_000, []]


def test_heartbeat_of_a_huge_batch_can_travel() -> None:
    """The gateway's decoder takes so many tags; more would be an offence."""
    shift = Shift(limits=BatchLimits(max_rows=2_000)).welcomed()
    for first in range(0, 2_000, 200):
        shift.hears(0, Kind.REQUEST, *[asks(first + n) for n in range(200)])
    (batch,) = shift.begins()
    assert len(batch.tasks) == 2_000

    shift.waits(0.55)

    assert len(shift.says(Kind.HEARTBEAT)[4]) == MAX_TAGS


def test_heartbeats_follow_the_shorter_of_both_ends() -> None:
    """Both ends may have been given different ones."""
    shift = Shift().welcomed(heartbeat_ms=100)
    for _ in range(10):
        shift.waits(0.1).hears(0, Kind.HEARTBEAT)

    assert len(shift.said(Kind.HEARTBEAT)) == 10


# Credits ---------------------------------------------------------------------------------------------


def test_credits_are_split_over_the_gateways() -> None:
    """At least one batch each."""
    for gateways, credits_rows in ((1, 64), (2, 32), (3, 32)):
        shift = Shift(gateways=gateways)
        assert [shift.says(Kind.READY, number)[5][0][4] for number in range(gateways)] == [credits_rows] * gateways


def test_credits_grow_with_the_measured_speed_and_are_told_at_once() -> None:
    """Where a batch takes less than a millisecond, as many rows as run in five."""
    shift = Shift(gateways=2).welcomed()
    for tag in range(20):
        shift.hears(0, Kind.REQUEST, asks(tag))
        (batch,) = shift.begins()
        shift.runs(batch, compute_s=0.000_2)

    told = [record[1] for record in shift.said(Kind.HEARTBEAT, 0)]
    assert told
    assert 2 * told[-1] == pytest.approx(32 * 0.005 / 0.000_2, rel=0.3)
    assert [record[1] for record in shift.said(Kind.HEARTBEAT, 1)] == told


def test_credits_shrink_again_when_batches_become_slow() -> None:
    """To two batches, and no less."""
    shift = Shift(limits=BatchLimits(max_rows=1)).welcomed()
    for tag in range(300):
        shift.hears(0, Kind.REQUEST, asks(tag))
        (batch,) = shift.begins()
        shift.runs(batch, compute_s=0.000_1 if tag < 50 else 0.5)

    told = [record[1] for record in shift.said(Kind.HEARTBEAT)]
    assert max(told) > 10
    assert told[-1] == 2
