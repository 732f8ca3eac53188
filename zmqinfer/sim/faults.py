"""What goes wrong: each kind of fault, and how it is done to a world.

A fault is drawn before the run: when, which kind, how long, and a number that picks its victim among those
that are there then. So one can be taken out without changing the others, which is how a failing run is made small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from zmqinfer.sim.client import ClientProcess
from zmqinfer.sim.process import Process
from zmqinfer.sim.worker import WorkerProcess
from zmqinfer.sim.world import World

__all__ = ["BLOCKING", "KINDS", "LASTS_S", "Fault", "draw"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        pick: from 0 up to 1, of the victim.
        lasts_s: until it heals, where it does.
    """

    at: float
    kind: str
    pick: float
    lasts_s: float

    def __str__(self) -> str:
        return f"{self.at:.3f} s {self.kind} for {self.lasts_s:.3f} s"


def draw(
    random: Random, counts: Mapping[str, int], lasts_s: Mapping[str, tuple[float, float]], duration_s: float
) -> list[Fault]:
    """Draws so many faults of each kind, in the order of their times."""
    spans = {**LASTS_S, **lasts_s}
    faults = [
        Fault(random.uniform(0, duration_s), kind, random.random(), random.uniform(*spans[kind]))
        for kind, count in counts.items()
        for _ in range(count)
    ]
    return sorted(faults, key=lambda fault: fault.at)


def _one(victims: Iterable[T], fault: Fault) -> T | None:
    """Picks one of those who are there, or None."""
    there: Sequence[T] = list(victims)
    return there[int(fault.pick * len(there))] if there else None


def _from(victims: Iterable[T], fault: Fault) -> list[T]:
    """Returns those who are there, beginning with the one that is picked."""
    there = list(victims)
    first = int(fault.pick * len(there))
    return there[first:] + there[:first]


def _crash_worker(world: World, fault: Fault) -> bool:
    place = _one(world.workers, fault)
    if place is None:
        return False
    world.kill(world.workers[place])
    world.timeline.after(fault.lasts_s, lambda: world.start_worker(place))
    return True


def _crash_gateway(world: World, fault: Fault) -> bool:
    place = _one(world.gateways, fault)
    if place is None:
        return False
    world.kill(world.gateways[place])
    world.timeline.after(fault.lasts_s, lambda: world.start_gateway(place))
    return True


def _crash_client(world: World, fault: Fault) -> bool:
    place = _one(world.clients, fault)
    if place is None:
        return False
    world.kill(world.clients[place])
    world.timeline.after(fault.lasts_s, lambda: world.start_client(place))
    return True


def _freeze(world: World, process: Process | None, lasts_s: float) -> bool:
    if process is None or process.is_frozen:
        return False
    process.freeze()
    world.network.review(process)
    world.timeline.after(lasts_s, lambda: _thaw(world, process))
    return True


def _thaw(world: World, process: Process) -> None:
    if process.is_alive:
        process.thaw()
        world.network.review(process)


def _freeze_worker(world: World, fault: Fault) -> bool:
    return _freeze(world, _one(world.workers.values(), fault), fault.lasts_s)


def _freeze_gateway(world: World, fault: Fault) -> bool:
    return _freeze(world, _one(world.gateways.values(), fault), fault.lasts_s)


def _freeze_client(world: World, fault: Fault) -> bool:
    return _freeze(world, _one(world.clients.values(), fault), fault.lasts_s)


def _slow_worker(world: World, fault: Fault) -> bool:
    worker = _one(world.workers.values(), fault)
    if worker is None:
        return False
    worker.slowness *= 10

    def heal() -> None:
        worker.slowness /= 10

    world.timeline.after(fault.lasts_s, heal)
    return True


def _hang_worker(world: World, fault: Fault) -> bool:
    return any(worker.hang(fault.lasts_s) for worker in _from(world.workers.values(), fault))


def _faulty_worker(world: World, fault: Fault) -> bool:
    worker = _one(world.workers.values(), fault)
    if worker is None:
        return False
    worker.is_faulty = True

    def heal() -> None:
        worker.is_faulty = False

    world.timeline.after(fault.lasts_s, heal)
    return True


def _block(world: World, fault: Fault, *, up: bool, down: bool) -> bool:
    wire = _one(world.network.wires(), fault)
    if wire is None:
        return False
    dealer, router = wire.dealer.owner, wire.router.owner
    pairs = [(dealer, router)] * up + [(router, dealer)] * down
    for pair in pairs:
        world.network.block(*pair)

    def heal() -> None:
        for pair in pairs:
            world.network.unblock(*pair)

    world.timeline.after(fault.lasts_s, heal)
    return True


def _partition(world: World, fault: Fault) -> bool:
    return _block(world, fault, up=True, down=True)


def _one_way_up(world: World, fault: Fault) -> bool:
    return _block(world, fault, up=True, down=False)


def _one_way_down(world: World, fault: Fault) -> bool:
    return _block(world, fault, up=False, down=True)


def _cut(world: World, fault: Fault) -> bool:
    wire = _one(world.network.wires(), fault)
    if wire is None:
        return False
    world.network.cut(wire)
    return True


def _flap(world: World, fault: Fault) -> bool:
    wire = _one(world.network.wires(), fault)
    if wire is None:
        return False
    dealer, router = wire.dealer, wire.router.owner
    for number in range(int(fault.lasts_s / 0.3) + 1):
        world.timeline.after(0.3 * number, lambda: _cut_between(world, dealer.owner, router))
    return True


def _cut_between(world: World, dealer: Process, router: Process) -> None:
    for wire in list(world.network.wires()):
        if wire.dealer.owner is dealer and wire.router.owner is router:
            world.network.cut(wire)


def _drain_worker(world: World, fault: Fault) -> bool:
    place = _one(world.workers, fault)
    if place is None:
        return False
    worker = world.workers[place]
    worker.drain()

    def restart() -> None:
        if worker.is_alive:
            world.timeline.after(0.1, restart)
        else:
            world.start_worker(place)

    world.timeline.after(fault.lasts_s, restart)
    return True


def _drain_gateway(world: World, fault: Fault) -> bool:
    place = _one(world.gateways, fault)
    if place is None:
        return False
    gateway = world.gateways[place]
    gateway.drain()

    def restart() -> None:
        if gateway.is_alive:
            world.timeline.after(0.1, restart)
        else:
            world.start_gateway(place)

    world.timeline.after(fault.lasts_s, restart)
    return True


def _join_worker(world: World, _fault: Fault) -> bool:
    world.start_worker(max(world.workers, default=-1) + 100)
    return True


def _relink(world: World, fault: Fault) -> bool:
    nodes: list[ClientProcess | WorkerProcess] = [*world.clients.values(), *world.workers.values()]
    node = _one((node for node in nodes if not node.is_frozen and len(node.dialler.addresses()) > 1), fault)
    if node is None:
        return False
    address = node.dialler.addresses()[-1]
    node.dialler.remove(address, world.timeline.now)
    node.rouse()

    def return_() -> None:
        if node.is_frozen:
            world.timeline.after(0.1, return_)
        elif node.is_alive:
            node.dialler.add(address, world.network.dial(node, address), world.timeline.now)
            node.rouse()

    world.timeline.after(fault.lasts_s, return_)
    return True


def _overload(world: World, fault: Fault) -> bool:
    client = _one(world.clients, fault)
    if client is None:
        return False
    for _ in range(300):
        world.call(client)
    return True


def _poison(world: World, fault: Fault) -> bool:
    client = _one(world.clients, fault)
    if client is None:
        return False
    world.call(client, is_poison=True)
    return True


def _clock_jump(world: World, fault: Fault) -> bool:
    # The machines know no wall clock; this shows that nothing of them does.
    world.wall_clock_s += (fault.pick - 0.5) * 2 * 86_400
    return True


# Those that keep messages on their way for as long as they last.
BLOCKING = ("stall", "partition", "one_way_up", "one_way_down")
KINDS: dict[str, Callable[[World, Fault], bool]] = {
    "crash_worker": _crash_worker,
    "crash_gateway": _crash_gateway,
    "crash_client": _crash_client,
    "freeze_worker": _freeze_worker,
    "freeze_gateway": _freeze_gateway,
    "freeze_client": _freeze_client,
    "slow_worker": _slow_worker,
    "hang_worker": _hang_worker,
    "faulty_worker": _faulty_worker,
    "stall": _partition,
    "partition": _partition,
    "one_way_up": _one_way_up,
    "one_way_down": _one_way_down,
    "cut": _cut,
    "flap": _flap,
    "drain_worker": _drain_worker,
    "drain_gateway": _drain_gateway,
    "join_worker": _join_worker,
    "relink": _relink,
    "overload": _overload,
    "poison": _poison,
    "clock_jump": _clock_jump,
}

# How long each kind lasts, unless a scenario says otherwise.
LASTS_S: dict[str, tuple[float, float]] = {
    **dict.fromkeys(KINDS, (0.1, 2.0)),
    "stall": (0.02, 0.5),
    "freeze_worker": (0.1, 6.0),
    "freeze_gateway": (0.1, 6.0),
    "freeze_client": (0.1, 6.0),
    "slow_worker": (0.1, 6.0),
    "hang_worker": (1.5, 8.0),
    "faulty_worker": (0.5, 6.0),
    "partition": (0.5, 5.0),
    "one_way_up": (0.5, 5.0),
    "one_way_down": (0.5, 5.0),
}
