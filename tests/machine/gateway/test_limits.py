"""What a gateway does not take, or takes once."""

from __future__ import annotations

import pytest

from tests.machine.gateway.playbook import Playbook, card, outcome, request
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.records import (
    RAN,
    RESULT,
    Kind,
)

MAYBE = EXECUTED.index(Executed.MAYBE)


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
