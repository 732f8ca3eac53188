"""The sockets of a worker's or client's process."""

from __future__ import annotations

from tests.sim.towns import ask, go, town
from zmqinfer.errors import Status


def test_what_no_connection_took_leaves_with_the_next_one() -> None:
    """It stays in the outbox meanwhile."""
    world = town()
    world.kill(world.gateways[0])
    go(world, 0.1)
    calls = ask(world, 3)
    go(world, 0.5)
    assert [call.status for call in calls] == [None] * 3
    world.start("gateway", 0)
    go(world, 3.0)
    assert [call.status for call in calls] == [Status.OK] * 3
