"""The worker: how it leaves."""

from __future__ import annotations

from tests.machine.worker.playbook import Shift, asks
from zmqinfer.config import WorkerSettings
from zmqinfer.records import TAG, Kind


def test_drain_finishes_what_is_held_and_waits_for_both_echoes() -> None:
    """Draining, acknowledged, all answered, closing, acknowledged: then, and not before, it is drained."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(1))
    (batch,) = shift.begins()

    shift.machine.drain(shift.now)
    shift.machine.drain(shift.now)
    shift.waits(0.0)
    assert shift._stepped().says(Kind.DISCONNECT)[0] == "draining"
    shift.hears(0, Kind.REQUEST, asks(2)).hears(0, Kind.DISCONNECT, ["draining", ""])
    shift.machine.on_timer(shift.now)
    assert shift._stepped().said(Kind.DISCONNECT) == []

    shift.runs(batch).works()
    assert sorted(record[TAG] for record in shift.said(Kind.REPLY)) == [1, 2]
    shift.machine.on_timer(shift.now)
    assert shift._stepped().says(Kind.DISCONNECT)[0] == "closing"
    assert not shift.machine.is_drained
    shift.hears(0, Kind.DISCONNECT, ["closing", ""])

    assert shift.machine.is_drained
    assert shift.machine.ended_by == ""


def test_drain_may_be_asked_for_by_an_operator() -> None:
    """Through the gateway; the same as SIGTERM."""
    shift = Shift(gateways=2).welcomed().hears(0, Kind.DISCONNECT, ["drain", "an operator asked for it"])

    assert shift.machine.is_draining
    assert [shift.says(Kind.DISCONNECT, number)[0] for number in (0, 1)] == ["draining", "draining"]


def test_drain_ends_with_the_time_of_grace() -> None:
    """A gateway that never acknowledges, or a model that never returns, does not keep it."""
    shift = Shift(settings=WorkerSettings(drain_grace_s=1.2)).welcomed().hears(0, Kind.REQUEST, asks(1))
    shift.begins()
    shift.machine.drain(shift.now)

    shift.waits(1.1)
    assert not shift.machine.is_drained
    shift.waits(0.2)

    assert shift.machine.is_drained


def test_drain_does_not_wait_for_gateways_that_are_not_there() -> None:
    """It said nothing for a heartbeat, or it went away meanwhile."""
    shift = Shift()
    shift.machine.drain(shift.now)
    assert not shift.waits(0.4).machine.is_drained
    assert shift.waits(0.2).machine.is_drained

    gone = Shift().welcomed()
    gone.machine.drain(gone.now)
    gone.hears(0, Kind.DISCONNECT, ["no session", ""])
    gone.machine.on_timer(gone.now)
    assert gone.machine.is_drained


def test_drained_worker_is_not_announced_again() -> None:
    """A restarted gateway must not send new work to one that is about to exit."""
    shift = Shift().welcomed()
    shift.said(Kind.READY)
    shift.machine.drain(shift.now)

    shift.hears(0, Kind.DISCONNECT, ["no session", ""])
    shift.machine.on_timer(shift.now)

    assert shift._stepped().said(Kind.READY) == []


def test_greeting_that_was_read_before_the_drain_is_withdrawn_behind_it() -> None:
    """The gateway may take this worker in, and give it work, before it reads that it leaves."""
    shift = Shift()
    shift.machine.drain(shift.now)
    assert shift._stepped().says(Kind.DISCONNECT)[0] == "draining"

    shift.hears(0, Kind.WELCOME, [b"0123456789abcdef", "gateway", 500, 2**27, []])
    shift.hears(0, Kind.REQUEST, asks(1)).works()
    assert shift.says(Kind.REPLY)[TAG] == 1
    shift.hears(0, Kind.DISCONNECT, ["draining", ""]).waits(0.5)
    assert shift.says(Kind.DISCONNECT)[0] == "closing"
    shift.hears(0, Kind.DISCONNECT, ["closing", ""])

    assert shift.machine.is_drained


def test_greeting_that_has_not_left_before_the_drain_never_leaves() -> None:
    """Its gateway was away, and comes back while the worker finishes what it holds for others."""
    shift = Shift().welcomed()
    shift.machine.on_message(0, Kind.DISCONNECT, [["no session", ""]], shift.now)

    shift.machine.drain(shift.now)

    assert shift.machine.is_drained
    shift._stepped().says_nothing()
