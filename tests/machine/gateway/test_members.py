"""A gateway's workers, and who of them takes requests."""

from __future__ import annotations

import pytest

from tests.machine.gateway.playbook import session_of
from zmqinfer.machine.gateway.members import Replica, Roster, WorkerSession, WorkerState
from zmqinfer.machine.outbox import Outbox


def worker(name: str) -> WorkerSession:
    return WorkerSession(name, session_of(name), 1.0, None, Outbox(name.encode(), []))


def test_roster_tells_those_who_take_requests_from_those_who_are_leaving() -> None:
    """The ring is of the first; both have a session."""
    roster = Roster()
    assert not roster.has_ready()
    empty = roster.ring_version()
    for name in ("w2", "w1"):
        one = roster.by_name[name] = worker(name)
        one.replicas[0] = Replica(one, "m", 1, 32, 64)

    both = roster.ring_version()
    roster.by_name["w2"].state = WorkerState.DRAINING

    assert roster.has_ready()
    assert roster.ready_names() == ["w1"]
    assert len({empty, both, roster.ring_version()}) == 3


def test_replica_counts_in_grains_only_if_its_batches_are_short() -> None:
    """It then grants more rows than two batches have; what the gateway thinks of it may be less."""
    replica = Replica(worker("w1"), "m", 1, 32, 64)
    assert (replica.credits, replica.grain) == (64, 1)

    replica.granted = 640
    replica.allow()
    assert (replica.credits, replica.grain) == (640, 20)

    replica.limit = 1
    replica.allow()
    assert (replica.credits, replica.grain) == (1, 1)


@pytest.mark.parametrize("granted", [0, 1, 9, 20, 31, 32, 1_024])
@pytest.mark.parametrize("max_rows", [1, 4, 15, 32])
def test_a_grain_is_a_row_or_more(max_rows: int, granted: int) -> None:
    """Of small batches that are short a worker has few credits while it learns, and placement divides by the grain."""
    assert Replica(worker("w1"), "m", 1, max_rows, granted).grain >= 1
