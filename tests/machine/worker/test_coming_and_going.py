"""Models and gateways that come and go while a worker serves."""

from __future__ import annotations

from tests.machine.worker.playbook import NO, YES, Shift, X, asks
from zmqinfer.errors import Status
from zmqinfer.machine.worker.served import ModelCard
from zmqinfer.policy.batching import BatchLimits
from zmqinfer.records import RAN, STATUS, TAG, Kind


def test_a_model_that_is_added_has_a_number_of_its_own() -> None:
    """It is told to all gateways, and the numbers of those that were taken away are not used again."""
    shift = Shift(gateways=2).welcomed()
    second = shift.machine.add_model(ModelCard("n", 1, X, BatchLimits()))
    shift.machine.remove_model(second)

    third = shift.machine.add_model(ModelCard("n", 2, X, BatchLimits()))
    told = shift._stepped().said(Kind.MODELS, 0)

    assert (second, third) == (1, 2)
    assert [(number, None if one is None else one[:2]) for number, one in told] == [
        (1, ["n", 1]), (1, None), (2, ["n", 2])
    ]  # fmt: skip
    assert shift.said(Kind.MODELS, 1) == told


def test_what_waits_for_a_model_that_is_taken_away_is_given_back_and_what_runs_is_answered() -> None:
    """Also what comes after that; the model beside it is not disturbed."""
    shift = Shift(ModelCard("m", 1, X, BatchLimits(max_rows=1)), ModelCard("n", 1, X, BatchLimits())).welcomed()
    shift.hears(0, Kind.REQUEST, asks(1, "m"), asks(2, "m"), asks(3, "n"))
    running, other = shift.begins()

    shift.machine.remove_model(0)
    shift._stepped().hears(0, Kind.REQUEST, asks(4, "m"), asks(5, "unknown"))
    shift.runs(running).runs(other)

    ends = {record[TAG]: (Status(record[STATUS]), record[RAN]) for record in shift.said(Kind.REPLY)}
    assert ends == {
        1: (Status.OK, YES), 2: (Status.CANCELLED, NO), 3: (Status.OK, YES), 4: (Status.CANCELLED, NO),
        5: (Status.NOT_FOUND, NO),
    }  # fmt: skip
    assert shift.machine.held == 0


def test_a_twin_of_what_is_given_back_is_given_back_too() -> None:
    """Two gateways may have sent the same call; neither is left with nobody who answers."""
    shift = Shift(ModelCard("m", 1, X, BatchLimits(max_rows=1)), gateways=2).welcomed()
    shift.hears(0, Kind.REQUEST, asks(1, "m"), asks(2, "m")).hears(1, Kind.REQUEST, asks(2, "m"))
    (running,) = shift.begins()

    shift.machine.remove_model(0)
    shift._stepped().runs(running)

    given_back = [record[STATUS] for number in range(2) for record in shift.said(Kind.REPLY, number)]
    assert sorted(given_back) == [Status.OK, Status.CANCELLED, Status.CANCELLED]
    assert shift.machine.held == 0


def test_a_model_may_be_loaded_anew() -> None:
    """What waits for the earlier one goes back, what comes is the new one's."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(1))
    new = shift.machine.add_model(ModelCard("m", 1, X, BatchLimits()))
    shift.machine.remove_model(0)

    (batch,) = shift._stepped().hears(0, Kind.REQUEST, asks(2)).begins()

    assert batch.engine == new
    assert [task.tag for task in batch.tasks] == [2]


def test_a_gateway_that_is_added_is_greeted_and_all_are_told_their_parts_anew() -> None:
    """With one more each has less; numbers are not used again."""
    shift = Shift(limits=BatchLimits(max_rows=1)).welcomed()
    shift._said.clear()

    number = shift.machine.add_link("tcp://another", shift.now)
    shift._stepped()

    assert number == 1
    assert shift.says(Kind.READY, 1)[1] == "w1"
    assert (shift.says(Kind.HEARTBEAT, 0)[1], shift.says(Kind.MODELS, 1)[1][4]) == (1, 1)


def test_a_gateway_is_left_when_it_has_all_its_answers() -> None:
    """Nothing more comes from there, the others go on, and the link is gone for good."""
    shift = Shift(gateways=2).welcomed()
    shift.hears(0, Kind.REQUEST, asks(1)).hears(1, Kind.REQUEST, asks(2))
    (batch,) = shift.begins()

    shift.machine.remove_link(0, shift.now)
    assert shift._stepped().says(Kind.DISCONNECT, 0)[0] == "draining"
    shift.hears(0, Kind.DISCONNECT, ["draining", ""]).waits(0.6)
    assert shift.said(Kind.DISCONNECT, 0) == []
    shift.runs(batch).waits(0.6)
    assert shift.says(Kind.DISCONNECT, 0)[0] == "closing"
    shift.hears(0, Kind.DISCONNECT, ["closing", ""]).waits(0.6)

    assert shift.machine.left == [0]
    assert list(shift.machine.links) == [1]
    assert not shift.machine.is_drained
    assert shift.hears(0, Kind.REQUEST, asks(9)).machine.held == 0
    assert shift.machine.add_link("tcp://another", shift.now) == 2


def test_a_gateway_may_be_left_while_what_an_earlier_session_gave_runs() -> None:
    """Nobody waits for that any more, and its end disturbs nothing."""
    shift = Shift(gateways=2).welcomed().hears(0, Kind.REQUEST, asks(1))
    (batch,) = shift.begins()
    shift.hears(0, Kind.DISCONNECT, ["no session", ""])

    shift.machine.remove_link(0, shift.now)
    shift._stepped().hears(0, Kind.DISCONNECT, ["draining", ""]).waits(0.6)
    shift.hears(0, Kind.DISCONNECT, ["closing", ""]).waits(0.6)
    assert shift.machine.left == [0]
    shift.runs(batch)

    assert (shift.machine.held, shift.machine.tasks.dropped) == (0, 1)
