"""The way of a request through a gateway, told as dialogues."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.machine.gateway.playbook import Playbook, card, identities, outcome, reply, request
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.records import (
    BUDGET_US,
    KEY,
    MODEL_VERSION,
    OUTPUT,
    RAN,
    REQUEST_FIELDS,
    RESULT,
    ROWS,
    STATUS,
    TAG,
    Kind,
)

NO = EXECUTED.index(Executed.NO)
MAYBE = EXECUTED.index(Executed.MAYBE)


# The way there and back ------------------------------------------------------------------------------


def test_request_goes_to_the_home_of_its_key_and_its_answer_back_under_the_clients_own_tag() -> None:
    """The tag is hop by hop: the worker sees the gateway's, the client its own."""
    play = Playbook().with_workers("w1", "w2", "w3").with_clients("alice")
    key = play.key_of("w2")

    asked = play.hears("alice", Kind.REQUEST, request(7, key=key)).says("w2", Kind.REQUEST)
    answer = play.hears("w2", Kind.REPLY, reply(asked, "w2", output=b"42")).says("alice", Kind.REPLY)

    assert asked[TAG] != 7
    assert asked[KEY] is None, "it has found its worker"
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
    home = play.home(b"an-id")

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

    play.hears("w1", Kind.REPLY, reply([play.machine.scheduler.dispatches._tag, 1]))
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
    assert identities([play.says("w2", Kind.REQUEST)]) == [b"id3"]


def test_keyed_request_takes_its_home_as_soon_as_that_has_room() -> None:
    """That is what it waited for."""
    play = Playbook(GatewaySettings(affinity_wait_ms=50)).with_workers("w1", "w2", credits_rows=1).with_clients("a")
    key = play.key_of("w1")
    play.hears("a", Kind.REQUEST, request(1), request(2), request(3, key=key))

    play.hears("w1", Kind.REPLY, reply(play.says("w1", Kind.REQUEST)))

    assert identities([play.says("w1", Kind.REQUEST)]) == [b"id3"]


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
    assert "zmqinfer worker --models DIR --gateway tcp://back:5556" in answer[RESULT]


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
    assert all(route.is_known for route in play.machine.routes)


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
    assert play.says("w1", Kind.CANCEL) == [asked[TAG], 1]
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


def test_what_was_given_back_and_may_have_run_is_not_run_twice() -> None:
    """A worker that says so is believed."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, request(1, key=play.key_of("w1"), idempotent=False))
    (record,) = asked.said("w1", Kind.REQUEST)

    play.hears("w1", Kind.REPLY, reply(record, status=Status.CANCELLED, ran=1))

    assert outcome(play.says("alice", Kind.REPLY)) == (1, Status.CANCELLED)
    play.says_nothing()
