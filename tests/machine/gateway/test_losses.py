"""What a gateway does with the requests of workers that are lost."""

from __future__ import annotations

import pytest

from tests.machine.gateway.playbook import Playbook, card, outcome, reply, request
from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.records import (
    OUTPUT,
    RAN,
    REQUEST_ID,
    STATUS,
    TAG,
    Kind,
)

NO = EXECUTED.index(Executed.NO)
MAYBE = EXECUTED.index(Executed.MAYBE)
SILENCE_S = 2.0  # by then a silent worker is lost: three heartbeats of 0.5 s and a look


def test_silent_worker_hands_its_requests_to_the_next_owner() -> None:
    """A worker silent for more than three heartbeats loses what it held to its successor on the ring."""
    play = Playbook().with_workers("w1", "w2", "w3").with_clients("alice")
    first, second, _ = play.successors(b"user-42")
    asked = play.hears("alice", Kind.REQUEST, request(1, key=b"user-42")).says(first, Kind.REQUEST)
    play.silent.add(first)

    play.waits(1.5).says_nothing(second)
    play.waits(SILENCE_S - 1.5)

    moved = play.says(second, Kind.REQUEST)
    assert moved[REQUEST_ID] == asked[REQUEST_ID]
    assert moved[TAG] != asked[TAG]
    assert play.requests()["moved"] == 1


def test_late_reply_of_the_earlier_dispatch_is_fenced() -> None:
    """Each dispatch has a tag of its own; a result from before the move is never delivered."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    first, second = play.successors(b"k")
    asked = play.hears("alice", Kind.REQUEST, request(1, key=b"k")).says(first, Kind.REQUEST)
    play.silent.add(first)
    moved = play.waits(SILENCE_S).says(second, Kind.REQUEST)

    play.hears(first, Kind.REPLY, reply(asked, first, output=b"old")).says_nothing("alice")
    play.joins(first, peer="again").hears("again", Kind.REPLY, reply(asked, first, output=b"old"))
    play.says_nothing("alice")
    play.hears(second, Kind.REPLY, reply(moved, second, output=b"new"))

    assert play.says("alice", Kind.REPLY)[OUTPUT] == b"new"
    assert play.status()["late_replies"] == 2


def test_unreachable_worker_hands_over_at_once() -> None:
    """EHOSTUNREACH names the dead: no waiting for its silence."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    first, second = play.successors(b"k")
    play.hears("alice", Kind.REQUEST, request(1, key=b"k")).says(first, Kind.REQUEST)

    play.loses(first).says(second, Kind.REQUEST)

    play.answers(second).says_nothing(first)


def test_all_that_a_lost_worker_held_is_answered_by_others() -> None:
    """None lost, none twice, and all credits in order."""
    play = Playbook().with_workers("w1", "w2", "w3").with_clients("alice")
    play.hears("alice", Kind.REQUEST, *[request(tag) for tag in range(90)])
    assert play.held("w1") > 10

    play.loses("w1").answers("w2").answers("w3")
    for _ in range(9):
        play.answers("w2").answers("w3")

    answers = play.said("alice", Kind.REPLY)
    assert sorted(record[TAG] for record in answers) == list(range(90))
    assert {record[STATUS] for record in answers} == {Status.OK}


def test_own_pause_is_not_the_workers_silence() -> None:
    """A gateway that slept gives every peer one fresh period of grace."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1, key=b"k"))

    play.sleeps(10.0)

    assert len(play.status()["workers"]) == 2
    play.silent |= {"w1", "w2"}
    play.waits(SILENCE_S)
    assert play.status()["workers"] == []


def test_request_that_may_not_run_twice_is_lost_with_its_worker() -> None:
    """WORKER_LOST, and whether it ran is not known."""
    play = Playbook().with_clients("alice").joins("w1", card(idempotent=False)).joins("w2", card(idempotent=False))
    first = play.home(b"k")
    play.hears("alice", Kind.REQUEST, request(1, key=b"k"))
    play.said("alice", Kind.WELCOME)

    play.loses(first)

    answer = play.says("alice", Kind.REPLY)
    assert outcome(answer) == (1, Status.WORKER_LOST)
    assert answer[RAN] == MAYBE
    assert play.said({"w1": "w2", "w2": "w1"}[first], Kind.REQUEST) == []


@pytest.mark.parametrize(("of_model", "of_request", "is_moved"), [(True, False, False), (False, True, True)])
def test_request_that_says_whether_it_may_run_twice_overrules_its_model(
    of_model: bool, of_request: bool, is_moved: bool
) -> None:
    """The caller knows best."""
    play = Playbook().with_clients("alice")
    play.joins("w1", card(idempotent=of_model)).joins("w2", card(idempotent=of_model))
    first, second = play.successors(b"k")
    play.hears("alice", Kind.REQUEST, request(1, key=b"k", idempotent=of_request))

    play.loses(first)

    assert len(play.said(second, Kind.REQUEST)) == is_moved
    assert len(play.said("alice", Kind.REPLY)) == (not is_moved)


def test_third_worker_lost_with_a_request_is_the_last() -> None:
    """It may well be what kills them."""
    play = Playbook().with_workers("w1", "w2", "w3", "w4").with_clients("alice")
    order = play.successors(b"k")
    play.hears("alice", Kind.REQUEST, request(1, key=b"k"))

    play.loses(order[0]).loses(order[1])
    assert play.said("alice", Kind.REPLY) == []
    play.loses(order[2])

    answer = play.says("alice", Kind.REPLY)
    assert outcome(answer) == (1, Status.WORKER_LOST)
    assert answer[RAN] == MAYBE
    assert play.said(order[3], Kind.REQUEST) == []


def test_what_never_left_for_a_lost_worker_is_no_loss() -> None:
    """A gateway that finds all of its connections gone in one turn loses nothing, even of what may not run twice."""
    play = Playbook().with_clients("alice")
    for number in range(5):
        play.joins(f"w{number}", card(idempotent=False))
    order = play.successors(b"k")
    play.machine.clients.on_message(b"alice", Kind.REQUEST, [request(1, key=b"k")], play.now, 0.0)

    for name in order[:4]:
        play.machine.workers.on_unreachable(name.encode(), play.now)

    play.hears("alice", Kind.HEARTBEAT).says(order[4], Kind.REQUEST)
    play.loses(order[4])
    assert outcome(play.says("alice", Kind.REPLY)) == (1, Status.WORKER_LOST)


def test_outcome_after_a_loss_never_claims_that_the_model_did_not_run() -> None:
    """The lost worker may have run it: `executed: no` must not be contradicted."""
    play = Playbook().with_workers("w1", "w2", "w3", credits_rows=1).with_clients("alice")
    play.hears("alice", Kind.REQUEST, *[request(tag, budget_s=5.0) for tag in range(3)])
    lost = play.says("w1", Kind.REQUEST)[REQUEST_ID]

    play.loses("w1").waits(5.1)

    ran = {b"id%d" % record[TAG]: record[RAN] for record in play.said("alice", Kind.REPLY)}
    assert ran[lost] == MAYBE


def test_refusal_of_the_next_worker_after_a_loss_is_no_proof_that_it_did_not_run() -> None:
    """The next worker speaks for itself alone."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    first, second = play.successors(b"k")
    play.hears("alice", Kind.REQUEST, request(1, key=b"k"))
    play.loses(first).answers(second, status=Status.DEADLINE_EXCEEDED, ran=NO)

    assert play.says("alice", Kind.REPLY)[RAN] == MAYBE


def test_tombstone_dies_with_its_worker() -> None:
    """What nobody wants any more is not moved."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    first, second = play.successors(b"k")
    play.hears("alice", Kind.REQUEST, request(1, key=b"k")).hears("alice", Kind.CANCEL, [1, 1])

    play.loses(first)

    assert play.said(second, Kind.REQUEST) == []
    assert not list(play.machine.scheduler.dispatches._open)
