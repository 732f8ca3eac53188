"""A client's process."""

from __future__ import annotations

from tests.sim.towns import ask, go, town
from zmqinfer.errors import Status


def test_a_call_taken_back_has_no_outcome() -> None:
    """And one that has ended cannot be."""
    world = town()
    first, second = ask(world, 2)
    assert world.clients[0].cancel(first)
    go(world, 0.5)
    assert (first.status, first.is_given_up) == (None, True)
    assert second.status is Status.OK
    assert not world.clients[0].cancel(second)


def test_a_call_ends_at_its_deadline_without_any_gateway() -> None:
    """Here the one that had it is gone."""
    world = town()
    world.kill(world.gateways[0])
    (call,) = ask(world, deadline_s=1.0)
    go(world, 1.3)
    assert call.status is Status.DEADLINE_EXCEEDED


def test_of_a_dead_client_nobody_waits() -> None:
    """Its session ends at the gateway after a while."""
    world = town()
    (call,) = ask(world)
    go(world, 0.005)
    world.kill(world.clients[0])
    go(world, 6.0)
    assert call.is_given_up
    assert not len(world.gateways[0].machine.clients)
