"""Each kind of fault, done to a small world."""

from __future__ import annotations

from random import Random

import pytest

from tests.sim.towns import ask, go, town
from zmqinfer.errors import Status
from zmqinfer.sim.faults import KINDS, Fault, draw


@pytest.mark.parametrize("kind", KINDS)
def test_kind_has_a_victim_and_heals(kind: str) -> None:
    """Afterwards there are as many nodes as before, and a call is answered."""
    world = town(gateways=2, workers=2)
    # Some faults need a batch that runs, on a worker that has run one before.
    for _ in range(2):
        go(world, 0.1)
        ask(world, 8)
    go(world, 0.005)
    assert KINDS[kind](world, Fault(0.0, kind, 0.3, 0.5))
    go(world, 9.0)
    assert (len(world.gateways), len(world.clients)) == (2, 1)
    for node in (*world.clients.values(), *world.workers.values()):
        assert len(node.dialler.ports) == len(node.dialler.addresses()) == 2
    if kind != "poison":
        assert len(world.workers) == 2 + (kind == "join_worker")
        world.call(0)
        go(world, 1.0)
        last = world.history.calls[-1]
        assert last.status is Status.OK or last.is_given_up


def test_without_victims_nothing_fires() -> None:
    """So it is not counted."""
    world = town()
    for process in (*world.workers.values(), *world.clients.values(), *world.gateways.values()):
        world.kill(process)
    fired = [kind for kind in KINDS if KINDS[kind](world, Fault(0.0, kind, 0.3, 0.5))]
    assert fired == ["join_worker"]


def test_drawn_faults_are_in_order_and_repeatable() -> None:
    """As many as were asked for."""
    faults = draw(Random(1), {"cut": 3, "flap": 1, "poison": 0}, {"cut": (3.0, 4.0)}, 10.0)
    assert sorted(fault.kind for fault in faults) == ["cut", "cut", "cut", "flap"]
    assert all(3.0 <= fault.lasts_s <= 4.0 for fault in faults if fault.kind == "cut")
    assert faults == sorted(faults, key=lambda fault: fault.at)
    assert faults == draw(Random(1), {"cut": 3, "flap": 1, "poison": 0}, {"cut": (3.0, 4.0)}, 10.0)
