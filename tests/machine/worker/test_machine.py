"""The worker: its sessions, and the credits that its models earn."""

from __future__ import annotations

import pytest

from tests.machine.worker.playbook import Shift, X, asks
from zmqinfer.config import WorkerSettings
from zmqinfer.machine.worker.served import ModelCard
from zmqinfer.policy.batching import BatchLimits
from zmqinfer.records import (
    MAX_TAGS,
    REQUEST_ID,
    TAG,
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

    assert shift.says(Kind.READY) == [b"0123456789abcdef", "w1", "test", 2_500, None]
    assert shift.said(Kind.MODELS) == [
        [0, ["m", 1, [[["x", "FP32", [-1]]], [["y", "FP32", [-1]]]], 16, 32, True, False]],
        [1, ["n", 3, [[["x", "FP32", [-1]]], [["y", "FP32", [-1]]]], 4, 8, False, False]],
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


def test_gateway_that_cannot_be_reached_is_told_of_every_minute() -> None:
    """After 5 s for the first time, by its address; and anew when one is lost that was there."""

    def warned(shift: Shift, seconds: float) -> list[tuple[str, dict[str, object]]]:
        shift.waits(seconds)
        said = shift.machine.warnings.copy()
        shift.machine.warnings.clear()
        return said

    def unreached(number: int, for_s: int) -> tuple[str, dict[str, object]]:
        return "cannot reach gateway", {"gateway": f"tcp://gateway{number}", "for_s": for_s}

    shift = Shift(gateways=2)
    shift.hears(1, Kind.WELCOME, [b"0" * 16, "gateway", 60_000, 2**27, []])

    assert warned(shift, 4.9) == []
    assert warned(shift, 1.0) == [unreached(0, 5)]
    assert warned(shift, 59.0) == []
    assert warned(shift, 1.0) == [unreached(0, 65)]
    shift.hears(0, Kind.WELCOME, [b"0" * 16, "gateway", 500, 2**27, []])
    assert warned(shift, 6.0) == []
    assert warned(shift, 1.5) == [unreached(0, 5)]


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
    assert shift.machine.tasks.dropped == 2


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


def test_heartbeat_names_a_block_once() -> None:
    """Though its calls came one by one into the batch, because one of them was known."""
    shift = Shift().welcomed().hears(0, Kind.REQUEST, asks(1)).works()
    again = asks(2, places=0b111)
    again[REQUEST_ID] = asks(1)[REQUEST_ID]
    (batch,) = shift.hears(0, Kind.REQUEST, again).begins()
    assert [task.places for task in batch.tasks] == [0b010, 0b100]

    shift.waits(0.55)

    assert shift.said(Kind.HEARTBEAT)[-1][4] == [2]


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
        assert [shift.says(Kind.MODELS, number)[1][4] for number in range(gateways)] == [credits_rows] * gateways


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
