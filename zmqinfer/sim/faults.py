"""What goes wrong: each kind of fault, and how it is done to a world.

A fault is drawn before the run: when, which kind, how long, and a number that picks its victim among those
that are there then. So one can be taken out without changing the others, which is how a failing run is made small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TypeVar

from zmqinfer.sim.client import ClientProcess
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


def _crash(world: World, fault: Fault, kind: str) -> bool:
    place = _one(world.nodes(kind), fault)
    if place is None:
        return False
    world.kill(world.nodes(kind)[place])
    world.timeline.after(fault.lasts_s, lambda: world.start(kind, place))
    return True


def _freeze(world: World, fault: Fault, kind: str) -> bool:
    process = _one(world.nodes(kind).values(), fault)
    if process is None or process.is_frozen:
        return False
    process.freeze()
    world.network.review(process)

    def thaw() -> None:
        if process.is_alive:
            process.thaw()
            world.network.review(process)

    world.timeline.after(fault.lasts_s, thaw)
    return True


def _drain(world: World, fault: Fault, kind: str) -> bool:
    place = _one(world.nodes(kind), fault)
    if place is None:
        return False
    process = world.nodes(kind)[place]
    process.drain()

    def restart() -> None:
        if process.is_alive:
            world.timeline.after(0.1, restart)
        else:
            world.start(kind, place)

    world.timeline.after(fault.lasts_s, restart)
    return True


def _slow_worker(world: World, fault: Fault) -> bool:
    worker = _one(world.workers.values(), fault)
    if worker is None:
        return False
    worker.slowness *= 10
    world.timeline.after(fault.lasts_s, lambda: setattr(worker, "slowness", worker.slowness / 10))
    return True


def _hang_worker(world: World, fault: Fault) -> bool:
    there = list(world.workers.values())
    first = int(fault.pick * len(there))
    return any(worker.hang(fault.lasts_s) for worker in there[first:] + there[:first])


def _faulty_worker(world: World, fault: Fault) -> bool:
    worker = _one(world.workers.values(), fault)
    if worker is None:
        return False
    worker.is_faulty = True
    world.timeline.after(fault.lasts_s, lambda: setattr(worker, "is_faulty", False))
    return True


def _block(world: World, fault: Fault, *, up: bool = True, down: bool = True) -> bool:
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
    ends = wire.dealer.owner, wire.router.owner

    def cut() -> None:
        for one in [one for one in world.network.wires() if (one.dealer.owner, one.router.owner) == ends]:
            world.network.cut(one)

    for number in range(int(fault.lasts_s / 0.3) + 1):
        world.timeline.after(0.3 * number, cut)
    return True


def _join_worker(world: World, _fault: Fault) -> bool:
    world.start("worker", max(world.workers, default=-1) + 100)
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


def _ask(world: World, fault: Fault, calls: int, *, is_poison: bool = False) -> bool:
    client = _one(world.clients, fault)
    if client is None:
        return False
    for _ in range(calls):
        world.call(client, is_poison=is_poison)
    return True


# Those that keep messages on their way for as long as they last.
BLOCKING = ("stall", "partition", "one_way_up", "one_way_down")
KINDS: dict[str, Callable[[World, Fault], bool]] = {
    **{f"crash_{kind}": partial(_crash, kind=kind) for kind in ("worker", "gateway", "client")},
    **{f"freeze_{kind}": partial(_freeze, kind=kind) for kind in ("worker", "gateway", "client")},
    "slow_worker": _slow_worker,
    "hang_worker": _hang_worker,
    "faulty_worker": _faulty_worker,
    "stall": _block,
    "partition": _block,
    "one_way_up": partial(_block, down=False),
    "one_way_down": partial(_block, up=False),
    "cut": _cut,
    "flap": _flap,
    **{f"drain_{kind}": partial(_drain, kind=kind) for kind in ("worker", "gateway")},
    "join_worker": _join_worker,
    "relink": _relink,
    "overload": partial(_ask, calls=300),
    "poison": partial(_ask, calls=1, is_poison=True),
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
