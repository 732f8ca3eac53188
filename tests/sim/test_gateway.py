"""A gateway's process."""

from __future__ import annotations

from tests.sim.towns import ask, go, town
from zmqinfer.errors import Status


def test_requests_reach_workers_and_answers_come_back() -> None:
    """As through the loop of production."""
    world = town(workers=3)
    calls = ask(world, 100)
    go(world, 1.0)
    assert [call.status for call in calls] == [Status.OK] * 100
    ledger = world.gateways[0].machine.ledger
    assert (ledger.received, ledger.answered, ledger.pending) == (100, 100, 0)


def test_a_worker_whose_connection_closes_is_noticed_at_once() -> None:
    """What it held moves."""
    world = town(workers=2)
    calls = ask(world, 40)
    go(world, 0.005)
    world.kill(world.workers[0])
    go(world, 0.6)
    assert [call.status for call in calls] == [Status.OK] * 40
    assert world.gateways[0].machine.scheduler.moved
