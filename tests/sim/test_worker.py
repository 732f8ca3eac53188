"""A worker's process, and its models."""

from __future__ import annotations

import pytest

from tests.sim.towns import MODEL, ask, go, town
from zmqinfer.errors import Status


def test_a_batch_takes_what_its_model_says() -> None:
    """11 ms for one row, a tenth more or less, and ten times that on a slow worker."""
    world = town()
    (quick,) = ask(world)
    go(world, 0.5)
    world.workers[0].slowness = 10.0
    (slow,) = ask(world)
    go(world, 0.5)
    assert quick.ended_at - quick.sent_at == pytest.approx(0.011, rel=0.15)
    assert slow.ended_at - slow.sent_at == pytest.approx(0.11, rel=0.15)


def test_calls_of_one_moment_run_together() -> None:
    """Up to the largest batch."""
    world = town()
    calls = ask(world, MODEL.max_batch_size)
    go(world, 0.5)
    assert len({call.runs[0] for call in calls}) == 1


def test_frozen_in_a_batch_it_does_the_rest_later() -> None:
    """The time that it was away does not count."""
    world = town()
    (call,) = ask(world)
    go(world, 0.005)
    worker = world.workers[0]
    worker.freeze()
    go(world, 1.0)
    assert call.status is None
    worker.thaw()
    go(world, 0.2)
    assert call.ended_at - call.sent_at == pytest.approx(1.012, abs=0.003)


def test_poison_ends_it() -> None:
    """At the end of the batch, and the one that gets it next; both are started again."""
    world = town(workers=2)
    before = [worker.name for worker in world.workers.values()]
    (call,) = ask(world, is_poison=True)
    go(world, 5.5)
    assert call.status is Status.POISONED
    assert len(call.runs) == call.kills == 2
    assert len(world.workers) == 2
    assert not {*before} & {worker.name for worker in world.workers.values()}


def test_drained_it_finishes_and_goes() -> None:
    """With nothing failed."""
    world = town(workers=2)
    calls = ask(world, 40)
    go(world, 0.002)
    world.workers[0].drain()
    go(world, 0.5)
    assert list(world.workers) == [1]
    assert [call.status for call in calls] == [Status.OK] * 40


def test_it_notes_what_ran() -> None:
    """Each call once."""
    world = town(workers=2)
    calls = ask(world, 50)
    go(world, 0.5)
    assert [len(call.runs) for call in calls] == [1] * 50
