"""The gateway's books: every call let in ends once, and all sums agree."""

from __future__ import annotations

import pytest

from tests.machine.gateway.playbook import Playbook, numbers, request
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status
from zmqinfer.records import PLACES, STATUS, TAG, Kind


def test_books_count_calls_not_records() -> None:
    """A block of five and a single one are six."""
    play = Playbook().with_workers("w1").with_clients("alice")

    play.hears("alice", Kind.REQUEST, request(32, calls=5), request(64))
    assert play.requests() == {
        "received": 6, "refused": 0, "accepted": 6, "answered": 0, "pending": 6,
        "moved": 0, "hedged": 0, "hedges_won": 0, "duplicates": 0, "outcomes": {},
    }  # fmt: skip

    play.answers("w1")
    assert play.requests()["outcomes"] == {"OK": 6}


def test_refused_block_is_refused_for_each_of_its_calls() -> None:
    """One reply says it for all; nothing of it is pending."""
    play = Playbook(GatewaySettings(max_client_requests=7)).with_workers("w1").with_clients("alice")

    play.hears("alice", Kind.REQUEST, request(32, calls=5), request(64, calls=3))

    refused = play.says("alice", Kind.REPLY)
    assert (refused[TAG], refused[PLACES], refused[STATUS]) == (64, 0b111, Status.OVERLOADED)
    assert play.requests()["refused"] == 3
    assert play.requests()["pending"] == 5


def test_expired_block_is_answered_once_for_all_that_is_left() -> None:
    """Its calls share a deadline."""
    play = Playbook(GatewaySettings(queue_wait_ms=10_000)).with_workers("w1", credits_rows=1).with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(32, calls=4, budget_s=0.5), request(64, calls=2, budget_s=0.5))
    play.answers("w1").says("alice", Kind.REPLY)

    play.waits(0.6)

    late = play.said("alice", Kind.REPLY)
    assert {record[STATUS] for record in late} == {Status.DEADLINE_EXCEEDED}
    assert len(numbers(late)) == 5
    assert play.requests()["pending"] == 0


@pytest.mark.parametrize("budget_s", [0.2, 30.0])
def test_no_worker_within_the_time_is_unavailable(budget_s: float) -> None:
    """The time is the deadline or `queue_wait_ms`, whichever comes first."""
    play = Playbook(GatewaySettings(queue_wait_ms=1_000), age_s=2.0).with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1, budget_s=budget_s))

    play.waits(min(budget_s, 1.0) + 0.02)

    assert play.says("alice", Kind.REPLY)[STATUS] == Status.UNAVAILABLE
