"""What goes wrong: each kind of fault, and how it is done to a world.

A fault is drawn before the run: when, which kind, how long, and a number that picks its victim among those
that are there then. So one can be taken out without changing the others, which is how a failing run is made small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, TypeAlias

from zmqinfer.sim.client import ClientProcess
from zmqinfer.sim.network import Wire
from zmqinfer.sim.worker import WorkerProcess
from zmqinfer.sim.world import World

__all__ = ["BLOCKING", "KINDS", "LASTS_S", "Fault", "draw"]


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


# Does it, and says whether there was a victim.
Strike: TypeAlias = Callable[[World, Fault], bool]
# What happens in its course: after each step comes how many seconds later the next one is due. None has no victim.
Course: TypeAlias = Iterator[float]


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


def _go_on(world: World, course: Course) -> bool:
    """Lets a fault take its next step; False if there is none."""
    pause_s = next(course, None)
    if pause_s is not None:
        world.timeline.after(pause_s, lambda: _go_on(world, course))
    return pause_s is not None


def _on(victims: Callable[[World], Iterable[Any]], strike: Callable[[World, Fault, Any], Course]) -> Strike:
    """Makes a kind of fault of what is done to one of some victims."""

    def fire(world: World, fault: Fault) -> bool:
        there = list(victims(world))
        return bool(there) and _go_on(world, strike(world, fault, there[int(fault.pick * len(there))]))

    return fire


def _on_each_kind(name: str, kinds: Iterable[str], strike: Callable[..., Course]) -> dict[str, Strike]:
    """Returns what is done to the node at a place, for some kinds of nodes."""
    return {f"{name}_{kind}": _on(partial(_places, kind), partial(strike, kind)) for kind in kinds}


def _places(kind: str, world: World) -> Iterable[int]:
    return world.nodes[kind]


def _crash(kind: str, world: World, fault: Fault, place: int) -> Course:
    world.kill(world.nodes[kind][place])
    yield fault.lasts_s
    world.start(kind, place)


def _freeze(kind: str, world: World, fault: Fault, place: int) -> Course:
    process = world.nodes[kind][place]
    if process.is_frozen:
        return
    process.freeze()
    world.network.review(process)
    yield fault.lasts_s
    if process.is_alive:
        process.thaw()
        world.network.review(process)


def _drain(kind: str, world: World, fault: Fault, place: int) -> Course:
    process = world.nodes[kind][place]
    process.drain()
    yield fault.lasts_s
    while process.is_alive:
        yield 0.1
    world.start(kind, place)


def _workers(world: World) -> Iterable[WorkerProcess]:
    return world.workers.values()


def _slow(_world: World, fault: Fault, worker: WorkerProcess) -> Course:
    worker.slowness *= 10
    yield fault.lasts_s
    worker.slowness /= 10


def _make_faulty(_world: World, fault: Fault, worker: WorkerProcess) -> Course:
    worker.is_faulty = True
    yield fault.lasts_s
    worker.is_faulty = False


def _hang(world: World, fault: Fault) -> bool:
    there = list(world.workers.values())
    first = int(fault.pick * len(there))
    return any(worker.hang(fault.lasts_s) for worker in there[first:] + there[:first])


def _join_worker(world: World, _fault: Fault) -> bool:
    world.start("worker", max(world.workers, default=-1) + 100)
    return True


def _wires(world: World) -> Iterable[Wire]:
    return world.network.wires()


def _block(world: World, fault: Fault, wire: Wire, *, up: bool = True, down: bool = True) -> Course:
    dealer, router = wire.dealer.owner, wire.router.owner
    pairs = [(dealer, router)] * up + [(router, dealer)] * down
    for pair in pairs:
        world.network.block(*pair)
    yield fault.lasts_s
    for pair in pairs:
        world.network.unblock(*pair)


def _cut(world: World, _fault: Fault, wire: Wire, times: int = 1) -> Course:
    ends = wire.dealer.owner, wire.router.owner
    for _ in range(times):
        for one in [one for one in world.network.wires() if (one.dealer.owner, one.router.owner) == ends]:
            world.network.cut(one)
        yield 0.3


def _flap(world: World, fault: Fault, wire: Wire) -> Course:
    return _cut(world, fault, wire, int(fault.lasts_s / 0.3) + 1)


def _linked_twice(world: World) -> Iterable[ClientProcess | WorkerProcess]:
    nodes: list[ClientProcess | WorkerProcess] = [*world.clients.values(), *world.workers.values()]
    return (node for node in nodes if not node.is_frozen and len(node.dialler.addresses()) > 1)


def _relink(world: World, fault: Fault, node: ClientProcess | WorkerProcess) -> Course:
    address = node.dialler.addresses()[-1]
    node.dialler.remove(address, world.timeline.now)
    node.rouse()
    yield fault.lasts_s
    while node.is_frozen:
        yield 0.1
    if node.is_alive:
        node.dialler.add(address, world.network.dial(node, address), world.timeline.now)
        node.rouse()


def _ask(world: World, _fault: Fault, client: int, calls: int, *, is_poison: bool = False) -> Course:
    for _ in range(calls):
        world.call(client, is_poison=is_poison)
    yield 0.0


# Those that keep messages on their way for as long as they last.
BLOCKING = ("stall", "partition", "one_way_up", "one_way_down")
KINDS: dict[str, Strike] = {
    **_on_each_kind("crash", ("worker", "gateway", "client"), _crash),
    **_on_each_kind("freeze", ("worker", "gateway", "client"), _freeze),
    "slow_worker": _on(_workers, _slow),
    "hang_worker": _hang,
    "faulty_worker": _on(_workers, _make_faulty),
    "stall": _on(_wires, _block),
    "partition": _on(_wires, _block),
    "one_way_up": _on(_wires, partial(_block, down=False)),
    "one_way_down": _on(_wires, partial(_block, up=False)),
    "cut": _on(_wires, _cut),
    "flap": _on(_wires, _flap),
    **_on_each_kind("drain", ("worker", "gateway"), _drain),
    "join_worker": _join_worker,
    "relink": _on(_linked_twice, _relink),
    "overload": _on(partial(_places, "client"), partial(_ask, calls=300)),
    "poison": _on(partial(_places, "client"), partial(_ask, calls=1, is_poison=True)),
}

# How long each kind lasts, unless a scenario says otherwise.
LASTS_S: dict[str, tuple[float, float]] = {
    **dict.fromkeys(KINDS, (0.1, 2.0)),
    **dict.fromkeys(("freeze_worker", "freeze_gateway", "freeze_client", "slow_worker"), (0.1, 6.0)),
    **dict.fromkeys(("partition", "one_way_up", "one_way_down"), (0.5, 5.0)),
    "stall": (0.02, 0.5),
    "hang_worker": (1.5, 8.0),
    "faulty_worker": (0.5, 6.0),
}
