"""The way of a request through a gateway, told as dialogues."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.machine.playbook import Playbook, card, identities, reply, request
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.machine.block import block_of
from zmqinfer.records import (
    BUDGET_US,
    KEY,
    MODEL_VERSION,
    OUTPUT,
    RAN,
    REQUEST_FIELDS,
    REQUEST_ID,
    RESULT,
    ROWS,
    STATUS,
    TAG,
    Kind,
    Record,
)

NO, YES, MAYBE = (EXECUTED.index(executed) for executed in (Executed.NO, Executed.YES, Executed.MAYBE))
SILENCE_S = 2.0  # by then a silent worker is lost: three heartbeats of 0.5 s and a look


def outcome(record: Record) -> tuple[int, Status]:
    return record[TAG], Status(record[STATUS])


# The way there and back ------------------------------------------------------------------------------


def test_request_goes_to_the_home_of_its_key_and_its_answer_back_under_the_clients_own_tag() -> None:
    """The tag is hop by hop: the worker sees the gateway's, the client its own."""
    play = Playbook().with_workers("w1", "w2", "w3").with_clients("alice")
    key = play.key_of("w2")

    asked = play.hears("alice", Kind.REQUEST, request(7, key=key)).says("w2", Kind.REQUEST)
    answer = play.hears("w2", Kind.REPLY, reply(asked, "w2", output=b"42")).says("alice", Kind.REPLY)

    assert asked[TAG] != 7
    assert asked[KEY] == key
    assert answer[TAG] == 7
    assert (answer[STATUS], answer[OUTPUT]) == (Status.OK, b"42")
    play.says_nothing()
    assert play.requests()["outcomes"] == {"OK": 1}


def test_same_key_goes_to_the_same_worker() -> None:
    """While membership and load allow."""
    play = Playbook().with_workers("w1", "w2", "w3").with_clients("alice", "bob")
    home = play.home(b"user-42")

    for tag in range(20):
        client = ("alice", "bob")[tag % 2]
        play.hears(client, Kind.REQUEST, request(tag, key=b"user-42"))
        play.answers(home).says(client, Kind.REPLY)

    play.says_nothing()


def test_request_without_a_key_goes_by_its_id() -> None:
    """A repeat carries the same id and so meets its first life on the same worker."""
    play = Playbook().with_workers("w1", "w2", "w3").with_clients("alice")
    home = play.home(block_of(b"an-id"))

    play.hears("alice", Kind.REQUEST, request(1, request_id=b"an-id")).answers(home).says("alice", Kind.REPLY)
    play.hears("alice", Kind.REQUEST, request(2, request_id=b"an-id")).answers(home).says("alice", Kind.REPLY)


def test_unknown_trailing_fields_travel_on_both_ways() -> None:
    """A trace context will come that way."""
    play = Playbook().with_workers("w1").with_clients("alice")

    asked = play.hears("alice", Kind.REQUEST, [*request(1), b"trace"]).says("w1", Kind.REQUEST)
    answer = play.hears("w1", Kind.REPLY, [*reply(asked), b"span"]).says("alice", Kind.REPLY)

    assert asked[REQUEST_FIELDS:] == [b"trace"]
    assert answer[-1] == b"span"


def test_budget_that_travels_is_what_is_left() -> None:
    """Time in the queue, and the gateway's own gap, are taken off."""
    play = Playbook().with_workers("w1", credits_rows=1).with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1))
    play.hears("alice", Kind.REQUEST, request(2, budget_s=10.0), gap=2.0)

    play.waits(3.0).answers("w1")

    left_s = play.says("w1", Kind.REQUEST)[BUDGET_US] / 1e6
    assert left_s == pytest.approx(5.0, abs=1e-3)


def test_request_whose_budget_ended_in_the_gateways_gap_is_answered_and_not_dispatched() -> None:
    """A node that was not looking charges the gap to all that it finds."""
    play = Playbook().with_workers("w1").with_clients("alice")

    play.hears("alice", Kind.REQUEST, request(1, budget_s=1.0), gap=1.5)

    answer = play.says("alice", Kind.REPLY)
    assert outcome(answer) == (1, Status.DEADLINE_EXCEEDED)
    assert answer[RAN] == NO
    play.says_nothing()


def test_versions_none_means_the_latest_that_has_a_worker() -> None:
    """And the worker is told which one that is."""
    play = Playbook().with_clients("alice")
    play.joins("old", card(version=1)).joins("new", card(version=3))
    play.said("alice", Kind.WELCOME)

    play.hears("alice", Kind.REQUEST, request(1), request(2, version=1), request(3, version=3))

    assert [record[MODEL_VERSION] for record in play.said("new", Kind.REQUEST)] == [3, 3]
    assert [record[MODEL_VERSION] for record in play.said("old", Kind.REQUEST)] == [1]
    play.loses("new").hears("alice", Kind.REQUEST, request(4))
    assert play.said("old", Kind.REQUEST)[-1][MODEL_VERSION] == 1


def test_request_for_no_version_is_moved_to_the_version_that_is_left() -> None:
    """What was dispatched as version 1 was not asked for as version 1."""
    play = Playbook().with_clients("alice").joins("old", card(version=1))
    play.hears("alice", Kind.REQUEST, request(1)).says("old", Kind.REQUEST)
    play.joins("new", card(version=2))

    play.loses("old")

    assert play.says("new", Kind.REQUEST)[MODEL_VERSION] == 2


def test_request_for_a_version_waits_for_that_version() -> None:
    """Another version is another model."""
    play = Playbook().with_clients("alice").joins("old", card(version=1)).joins("new", card(version=2))
    play.hears("alice", Kind.REQUEST, request(1, version=1)).says("old", Kind.REQUEST)

    play.loses("old")

    assert play.said("new", Kind.REQUEST) == []
    play.joins("old", card(version=1), peer="old-again").says("old-again", Kind.REQUEST)


# Load and credits ------------------------------------------------------------------------------------


def test_no_worker_takes_more_than_its_bounded_share_of_a_hot_key() -> None:
    """At the instant of placement a worker takes rows while it holds at most ceil(1.25 x total x share), or 2."""
    play = Playbook().with_workers("w1", "w2", "w3", "w4", credits_rows=1_000).with_clients("alice")

    for tag in range(100):
        play.hears("alice", Kind.REQUEST, request(tag, key=b"hot"))
        bound = max(2, math.ceil(1.25 * (tag + 1) / 4))
        assert max(play.held(name) for name in ("w1", "w2", "w3", "w4")) <= bound

    order = play.successors(b"hot")
    loads = [play.held(name) for name in order]
    assert loads == sorted(loads, reverse=True)
    assert sum(loads) == 100


def test_requests_wait_when_all_are_full_and_are_served_when_credits_return() -> None:
    """The gateway never sends more than the credits; one reply lets one more go."""
    play = Playbook().with_workers("w1", "w2", credits_rows=2).with_clients("alice")

    play.hears("alice", Kind.REQUEST, *[request(tag) for tag in range(10)])

    assert (play.held("w1"), play.held("w2")) == (2, 2)
    assert play.status()["queued"]["requests"] == 6
    first = play.said("w1", Kind.REQUEST)[0]
    play.hears("w1", Kind.REPLY, reply(first))
    assert len(play.said("w1", Kind.REQUEST)) == 1
    assert play.status()["queued"]["requests"] == 5


def test_more_credits_by_heartbeat_serve_who_waits() -> None:
    """Credits may grow at any time."""
    play = Playbook().with_workers("w1", credits_rows=1).with_clients("alice")
    play.hears("alice", Kind.REQUEST, *[request(tag) for tag in range(5)])

    play.hears("w1", Kind.HEARTBEAT, [0, 3, 1, None, []])

    assert len(play.said("w1", Kind.REQUEST)) == 3


def test_request_of_more_rows_than_the_credit_goes_to_one_that_holds_nothing() -> None:
    """It would else never run."""
    play = Playbook().with_workers("w1", credits_rows=4).with_clients("alice")

    play.hears("alice", Kind.REQUEST, request(1, rows=1), request(2, rows=30))
    assert [record[ROWS] for record in play.said("w1", Kind.REQUEST)] == [1]

    play.hears("w1", Kind.REPLY, reply([play.machine.dispatches._tag, 1]))
    assert [record[ROWS] for record in play.said("w1", Kind.REQUEST)] == [30]


def test_keyed_request_waits_for_its_home_and_then_takes_any() -> None:
    """For `affinity_wait_ms`; what is freed elsewhere meanwhile goes to those without a key."""
    play = Playbook(GatewaySettings(affinity_wait_ms=50)).with_workers("w1", "w2", credits_rows=1).with_clients("a")
    key = play.key_of("w1")
    play.hears("a", Kind.REQUEST, request(1), request(2))
    asked = {worker: play.says(worker, Kind.REQUEST) for worker in ("w1", "w2")}
    play.hears("a", Kind.REQUEST, request(3, key=key))

    play.hears("w2", Kind.REPLY, reply(asked["w2"], "w2")).says_nothing("w1", "w2")
    play.waits(0.045).says_nothing("w1", "w2")

    play.waits(0.010)
    assert play.says("w2", Kind.REQUEST)[KEY] == key


def test_keyed_request_takes_its_home_as_soon_as_that_has_room() -> None:
    """That is what it waited for."""
    play = Playbook(GatewaySettings(affinity_wait_ms=50)).with_workers("w1", "w2", credits_rows=1).with_clients("a")
    key = play.key_of("w1")
    play.hears("a", Kind.REQUEST, request(1), request(2), request(3, key=key))

    play.hears("w1", Kind.REPLY, reply(play.says("w1", Kind.REQUEST)))

    assert play.says("w1", Kind.REQUEST)[KEY] == key


def test_request_without_a_key_takes_an_idle_worker_past_those_who_wait_for_theirs() -> None:
    """Keyless work takes any credit: one who waits for w1 must not keep it from w2."""
    play = Playbook(GatewaySettings(affinity_wait_ms=1_000)).with_workers("w1", "w2", credits_rows=1).with_clients("a")
    key = play.key_of("w1")
    play.hears("a", Kind.REQUEST, request(1), request(2))
    asked = {worker: play.says(worker, Kind.REQUEST) for worker in ("w1", "w2")}
    play.hears("a", Kind.REQUEST, request(3, key=key))
    play.hears("w2", Kind.REPLY, reply(asked["w2"], "w2"))

    play.hears("a", Kind.REQUEST, request(4))

    assert identities(play.said("w2", Kind.REQUEST)) == [b"id4"]
    play.hears("w1", Kind.REPLY, reply(asked["w1"]))
    assert identities(play.said("w1", Kind.REQUEST)) == [b"id3"]


def test_more_urgent_request_overtakes_in_the_queue() -> None:
    """Priority 1 first, and within a priority clients take turns."""
    play = Playbook().with_workers("w1", credits_rows=1).with_clients("a", "b")
    play.hears("a", Kind.REQUEST, *[request(tag, request_id=b"a%d" % tag) for tag in range(4)])
    play.hears("b", Kind.REQUEST, request(1, request_id=b"b1"), request(2, request_id=b"b2", priority=1))

    served = []
    for _ in range(6):
        asked = play.says("w1", Kind.REQUEST)
        served += identities([asked])
        play.hears("w1", Kind.REPLY, reply(asked))

    assert served == [b"a0", b"b2", b"a1", b"b1", b"a2", b"a3"]


# Nobody there ----------------------------------------------------------------------------------------


def test_unknown_model_is_not_found_when_that_is_certain() -> None:
    """A ready worker, a gateway older than three seconds, and nobody ever announced it."""
    play = Playbook(age_s=3.1).with_workers("w1").with_clients("alice")

    answer = play.hears("alice", Kind.REQUEST, request(1, "other")).says("alice", Kind.REPLY)

    assert outcome(answer) == (1, Status.NOT_FOUND)
    assert "'other'" in answer[RESULT]
    assert "m (version 1)" in answer[RESULT]
    assert play.requests() | {"refused": 1, "accepted": 0} == play.requests()


def test_unknown_version_of_a_known_model_is_not_found() -> None:
    """The version is part of what is asked for."""
    play = Playbook(age_s=4.0).with_workers("w1").with_clients("alice")

    answer = play.hears("alice", Kind.REQUEST, request(1, version=9)).says("alice", Kind.REPLY)

    assert outcome(answer) == (1, Status.NOT_FOUND)
    assert "version 9" in answer[RESULT]


def _young(play: Playbook) -> str:
    play.with_workers("w1")
    return "other"


def _alone(play: Playbook) -> str:
    play.waits(10)
    return "other"


def _was_there_once(play: Playbook) -> str:
    play.waits(10).with_workers("w1").joins("w2", card("other")).loses("w2")
    return "other"


def _only_draining(play: Playbook) -> str:
    play.waits(10).with_workers("w1").hears("w1", Kind.DISCONNECT, ["draining", ""])
    return "other"


@pytest.mark.parametrize("prepare", [_young, _alone, _was_there_once, _only_draining])
def test_model_without_a_worker_is_waited_for_where_not_found_is_not_certain(prepare: Any) -> None:
    """Then UNAVAILABLE after `queue_wait_ms`, saying how to start a worker."""
    play = Playbook(age_s=2.0)
    model = prepare(play)
    play.with_clients("alice").hears("alice", Kind.REQUEST, request(1, model))

    assert play.waits(0.99).said("alice", Kind.REPLY) == []
    answer = play.waits(0.03).says("alice", Kind.REPLY)

    assert outcome(answer) == (1, Status.UNAVAILABLE)
    assert answer[RAN] == NO
    assert "zmqinfer worker --gateway tcp://back:5556" in answer[RESULT]


def test_worker_of_a_gateway_that_has_just_started_has_time_to_dial_it_again() -> None:
    """Its clients may have found it a second and a half earlier."""
    play = Playbook().with_clients("alice").hears("alice", Kind.REQUEST, request(1), request(2, "other"))

    play.waits(1.5 + 0.9).joins("w1")
    assert len(play.said("w1", Kind.REQUEST)) == 1

    assert outcome(play.waits(0.12).says("alice", Kind.REPLY)) == (2, Status.UNAVAILABLE)


def test_worker_that_joins_serves_who_waited() -> None:
    """A restarted gateway serves those who came before its workers."""
    play = Playbook().with_clients("alice").hears("alice", Kind.REQUEST, request(1), request(2, version=1))

    play.waits(0.9).joins("w1")

    assert len(play.said("w1", Kind.REQUEST)) == 2
    assert list(play.machine.routes._absent) == []


def test_patience_ends_with_the_first_worker_even_if_it_is_full_at_once() -> None:
    """`queue_wait_ms` is the wait for a first worker, not for room: after it came the deadline alone counts."""
    play = Playbook().with_clients("alice").hears("alice", Kind.REQUEST, *[request(tag) for tag in range(3)])
    play.waits(0.5).joins("w1", card(credits_rows=1))

    play.waits(5.0)

    assert play.said("alice", Kind.REPLY) == []
    play.answers("w1").says("alice", Kind.REPLY)
    play.answers("w1").says("alice", Kind.REPLY)
    play.answers("w1").says("alice", Kind.REPLY)


def test_patience_ends_with_the_first_worker_also_for_a_model_that_was_known() -> None:
    """The same when the model's last worker had left."""
    play = Playbook().with_workers("w1").with_clients("alice").loses("w1")
    play.hears("alice", Kind.REQUEST, *[request(tag, budget_s=3.0) for tag in range(2)])
    play.waits(0.5).joins("w2", card(credits_rows=1))

    play.waits(2.0)
    assert play.said("alice", Kind.REPLY) == []

    play.waits(0.6)
    assert {outcome(record)[1] for record in play.said("alice", Kind.REPLY)} == {Status.DEADLINE_EXCEEDED}


def test_last_worker_leaving_turns_the_queue_to_patience() -> None:
    """Nobody waits his whole deadline for a model that no worker serves."""
    play = Playbook(age_s=2.0).with_workers("w1", credits_rows=1).with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1), request(2))

    play.loses("w1").waits(1.05)

    statuses = [outcome(record) for record in play.said("alice", Kind.REPLY)]
    assert sorted(statuses) == [(1, Status.UNAVAILABLE), (2, Status.UNAVAILABLE)]


def test_request_that_is_late_on_arrival_leaves_nothing_behind() -> None:
    """A stranger's model names must not pile up."""
    play = Playbook().with_clients("alice")

    for tag in range(50):
        play.hears("alice", Kind.REQUEST, request(tag, f"model{tag}", budget_s=0.0))

    assert len(play.said("alice", Kind.REPLY)) == 50
    assert list(play.machine.routes) == []


# Deadlines -------------------------------------------------------------------------------------------


def test_deadline_in_the_queue_says_queue() -> None:
    """Nobody waits in the queue past the deadline."""
    play = Playbook().with_workers("w1", credits_rows=1).with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1), request(2, budget_s=0.5))

    assert play.waits(0.49).said("alice", Kind.REPLY) == []
    answer = play.waits(0.03).says("alice", Kind.REPLY)

    assert outcome(answer) == (2, Status.DEADLINE_EXCEEDED)
    assert (answer[OUTPUT], answer[RAN]) == ("queue", NO)
    assert play.status()["queued"]["requests"] == 0


def test_dispatched_request_past_its_deadline_keeps_its_credit_until_the_reply() -> None:
    """The worker holds it still, so a tombstone stays; its late reply is dropped and counted."""
    play = Playbook().with_workers("w1", credits_rows=1).with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, request(1, budget_s=0.5)).says("w1", Kind.REQUEST)

    answer = play.waits(0.52).says("alice", Kind.REPLY)
    play.hears("alice", Kind.REQUEST, request(2)).says_nothing("w1")

    assert outcome(answer) == (1, Status.DEADLINE_EXCEEDED)
    assert (answer[OUTPUT], answer[RAN]) == ("worker", MAYBE)
    assert play.held("w1") == 1
    play.hears("w1", Kind.REPLY, reply(asked)).says_nothing("alice")
    assert identities([play.says("w1", Kind.REQUEST)]) == [b"id2"]
    assert play.status()["late_replies"] == 1


def test_cancel_in_the_queue_ends_it() -> None:
    """It never reaches a worker."""
    play = Playbook().with_workers("w1", credits_rows=1).with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1), request(2))

    play.hears("alice", Kind.CANCEL, [2, 1]).answers("w1")

    assert outcome(play.says("alice", Kind.REPLY)) == (1, Status.OK)
    play.says_nothing()
    assert play.requests()["outcomes"] == {"OK": 1, "CANCELLED": 1}


def test_cancel_of_a_dispatched_request_is_told_to_its_worker() -> None:
    """And its credit comes back with the worker's reply alone."""
    play = Playbook().with_workers("w1", credits_rows=1).with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, request(1)).says("w1", Kind.REQUEST)

    play.hears("alice", Kind.CANCEL, [1, 1], [1, 1], [99, 1])

    assert play.says("w1", Kind.CANCEL) == [asked[TAG], 1]
    assert play.held("w1") == 1
    play.hears("w1", Kind.REPLY, reply(asked, status=Status.CANCELLED, ran=NO)).says_nothing("alice")
    assert play.held("w1") == 0
    assert play.requests()["outcomes"] == {"CANCELLED": 1}


# Workers that are lost -------------------------------------------------------------------------------


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
    assert play.machine.dispatches._open == {}


# Limits ----------------------------------------------------------------------------------------------


def test_requests_in_hand_are_limited() -> None:
    """At the limit less one, at the limit, and one above it."""
    play = Playbook(GatewaySettings(max_requests=3)).with_workers("w1").with_clients("a", "b")

    play.hears("a", Kind.REQUEST, request(1), request(2)).hears("b", Kind.REQUEST, request(1))
    assert play.said("b", Kind.REPLY) == []
    play.hears("b", Kind.REQUEST, request(2))

    answer = play.says("b", Kind.REPLY)
    assert outcome(answer) == (2, Status.OVERLOADED)
    assert "the limit is 3" in answer[RESULT]
    play.answers("w1").hears("b", Kind.REQUEST, request(2)).says("w1", Kind.REQUEST)


def test_requests_of_one_client_are_limited() -> None:
    """One client's crowd does not keep the others out."""
    play = Playbook(GatewaySettings(max_client_requests=2)).with_workers("w1").with_clients("a", "b")

    play.hears("a", Kind.REQUEST, request(1), request(2), request(3)).hears("b", Kind.REQUEST, request(1))

    assert outcome(play.says("a", Kind.REPLY)) == (3, Status.OVERLOADED)
    assert play.said("b", Kind.REPLY) == []


@pytest.mark.parametrize(("size", "is_taken"), [(1023, True), (1024, True), (1025, False)])
def test_body_is_limited(size: int, is_taken: bool) -> None:
    """TOO_LARGE names the limit and the size."""
    play = Playbook(GatewaySettings(max_body_bytes=1024)).with_workers("w1").with_clients("a")

    play.hears("a", Kind.REQUEST, request(1, payload=bytes(size)))

    answers = play.said("a", Kind.REPLY)
    assert len(play.said("w1", Kind.REQUEST)) == is_taken
    assert [outcome(answer) for answer in answers] == ([] if is_taken else [(1, Status.TOO_LARGE)])
    assert is_taken or ("1,025" in answers[0][RESULT] and "1,024" in answers[0][RESULT])


@pytest.mark.parametrize(("size", "is_taken"), [(2**19 - 1, True), (2**19, True), (2**19 + 1, False)])
@pytest.mark.parametrize("limit", ["max_bytes", "max_client_bytes"])
def test_bytes_in_hand_are_limited(limit: str, size: int, is_taken: bool) -> None:
    """The second body fits, or does not."""
    play = Playbook(GatewaySettings(**{limit: 2**20})).with_workers("w1").with_clients("a")

    play.hears("a", Kind.REQUEST, request(1, payload=[bytes(2**19)]), request(2, payload=[bytes(size)]))

    assert len(play.said("w1", Kind.REQUEST)) == 1 + is_taken
    assert len(play.said("a", Kind.REPLY)) == (not is_taken)


def test_waiting_requests_of_a_model_are_limited() -> None:
    """Those in the workers' hands do not count."""
    play = Playbook(GatewaySettings(max_queued=2)).with_workers("w1", credits_rows=1).with_clients("a")

    play.hears("a", Kind.REQUEST, *[request(tag) for tag in range(4)])

    answer = play.says("a", Kind.REPLY)
    assert outcome(answer) == (3, Status.OVERLOADED)
    assert play.requests() | {"received": 4, "refused": 1, "accepted": 3, "pending": 3} == play.requests()


@pytest.mark.parametrize("of_request", [None, True, False])
@pytest.mark.parametrize("of_model", [True, False])
def test_what_may_have_run_before_is_not_run_unless_it_may(of_model: bool, of_request: bool | None) -> None:
    """Its client had heard of no worker when it sent it again, and so did not know."""
    play = Playbook().with_clients("alice").joins("w1", card(idempotent=of_model))

    play.hears("alice", Kind.REQUEST, [*request(1, idempotent=of_request), None, None, True])

    if of_model if of_request is None else of_request:
        assert len(play.said("w1", Kind.REQUEST)) == 1
        return
    answer = play.says("alice", Kind.REPLY)
    assert outcome(answer) == (1, Status.WORKER_LOST)
    assert answer[RAN] == MAYBE
    assert play.said("w1", Kind.REQUEST) == []


def test_duplicate_of_a_pending_tag_is_ignored() -> None:
    """Resent behind a new greeting: one execution and one answer."""
    play = Playbook().with_workers("w1").with_clients("alice")

    play.hears("alice", Kind.REQUEST, request(1), request(1)).hears("alice", Kind.REQUEST, request(1))
    play.answers("w1")

    assert outcome(play.says("alice", Kind.REPLY)) == (1, Status.OK)
    counters = play.requests()
    assert (counters["received"], counters["duplicates"]) == (1, 2)


def test_gateway_at_rest_wants_no_timer() -> None:
    """Without peers and requests nothing waits for time to pass."""
    play = Playbook().with_clients("alice")
    assert play.machine.wake_at() is None

    play.hears("alice", Kind.REQUEST, request(1))
    assert play.machine.wake_at() is not None


def test_timer_at_the_instant_it_asked_for_is_never_too_early() -> None:
    """1024.1 * 100 is a little less than 102410: the gateway must not ask for the same instant again."""
    play = Playbook().with_clients("alice")

    for tag in range(3_000):
        play.machine.clients.on_message(b"alice", Kind.REQUEST, [request(tag, budget_s=0.01)], play.now)
        play.now = play.machine.wake_at() or 0.0
        play.machine.on_timer(play.now)
        assert play.machine.wake_at() is None, play.now
