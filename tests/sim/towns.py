"""A small world to look at in tests."""

from __future__ import annotations

from zmqinfer.machine.client.call import CallOptions
from zmqinfer.scenario import Scenario, TimedModel
from zmqinfer.sim.history import Call
from zmqinfer.sim.world import World

MODEL = TimedModel("m", a_ms=10.0, b_ms=1.0)


def town(*, gateways: int = 1, workers: int = 1, models: tuple[TimedModel, ...] = (MODEL,)) -> World:
    """Returns a world of one client, without load or faults, half a second after its start."""
    scenario = Scenario(gateways=(gateways, gateways), workers=(workers, workers), clients=(1, 1), models=models)
    world = World(scenario, 1)
    go(world, 0.5)
    return world


def go(world: World, seconds: float) -> None:
    """Lets so much time pass."""
    until = world.timeline.now + seconds
    while world.timeline.step(until):
        pass


def ask(world: World, calls: int = 1, *, deadline_s: float = 5.0, is_poison: bool = False) -> list[Call]:
    """Lets the client make calls of the first model."""
    client, model = world.clients[0], world.scenario.models[0]
    return [client.call(model, CallOptions(deadline_s), is_poison=is_poison) for _ in range(calls)]
