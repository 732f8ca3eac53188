"""The processes of a run, and what is asked of them."""

from __future__ import annotations

from tests.sim.towns import ask, go, town
from zmqinfer.errors import Status


def test_a_place_has_one_process_at_a_time() -> None:
    """Started anew it is another one, of another name."""
    world = town(workers=1)
    first = world.workers[0]
    world.start("worker", 0)
    assert world.workers[0] is first

    world.kill(first)
    assert 0 not in world.workers
    world.start("worker", 0)
    go(world, 0.5)

    assert world.workers[0].name != first.name
    (call,) = ask(world)
    go(world, 1.0)
    assert call.status is Status.OK


def test_what_happens_is_in_the_digest() -> None:
    """The same events give the same one."""
    one, other = town(), town()
    assert one.digest() == other.digest()

    ask(one)
    go(one, 0.5)
    go(other, 0.5)

    assert one.digest() != other.digest()
    assert [status["address"] for status in one.statuses()] == ["clients-0"]
