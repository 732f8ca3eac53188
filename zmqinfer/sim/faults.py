"""What goes wrong: each kind of fault, and how it is done to a world.

A fault is drawn before the run: when, which kind, how long, and a number that picks its victim among those
that are there then. So one can be taken out without changing the others, which is how a failing run is made small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TypeAlias, TypeVar

from zmqinfer.sim.client import ClientProcess
from zmqinfer.sim.network import Wire
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


# Does it, and says whether there was a victim.
Strike: TypeAlias = Callable[[World, Fault], bool]


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


def _on(victims: Callable[[World], Iterable[T]], strike: Callable[[World, Fault, T], object]) -> Strike:
    """Makes a kind of fault of what is done to one of some victims; `strike` returns False if nothing came of it."""

    def fire(world: World, fault: Fault) -> bool:
        there = list(victims(world))
        return bool(there) and strike(world, fault, there[int(fault.pick * len(there))]) is not False

    return fire


def _on_each_kind(name: str, kinds: Iterable[str], strike: Callable[..., object]) -> dict[str, Strike]:
    """Returns what is done to the node at a place, for some kinds of nodes."""
    return {f"{name}_{kind}": _on(partial(World.nodes, kind=kind), partial(strike, kind)) for kind in kinds}


def _crash(kind: str, world: World, fault: Fault, place: int) -> None:
    world.kill(world.nodes(kind)[place])
    world.timeline.after(fault.lasts_s, lambda: world.start(kind, place))


def _freeze(kind: str, world: World, fault: Fault, place: int) -> bool:
    process = world.nodes(kind)[place]
    if process.is_frozen:
        return False
    process.freeze()
    world.network.review(process)

    def thaw() -> None:
        if process.is_alive:
            process.thaw()
            world.network.review(process)

    world.timeline.after(fault.lasts_s, thaw)
    return True


def _drain(kind: str, world: World, fault: Fault, place: int) -> None:
    process = world.nodes(kind)[place]
    process.drain()

    def restart() -> None:
        if process.is_alive:
            world.timeline.after(0.1, restart)
        else:
            world.start(kind, place)

    world.timeline.after(fault.lasts_s, restart)


def _slow(world: World, fault: Fault, worker: WorkerProcess) -> None:
    worker.slowness *= 10
    world.timeline.after(fault.lasts_s, lambda: setattr(worker, "slowness", worker.slowness / 10))


def _hang(world: World, fault: Fault) -> bool:
    there = list(world.workers.values())
    first = int(fault.pick * len(there))
    return any(worker.hang(fault.lasts_s) for worker in there[first:] + there[:first])


def _make_faulty(world: World, fault: Fault, worker: WorkerProcess) -> None:
    worker.is_faulty = True
    world.timeline.after(fault.lasts_s, lambda: setattr(worker, "is_faulty", False))


def _block(world: World, fault: Fault, wire: Wire, *, up: bool = True, down: bool = True) -> None:
    dealer, router = wire.dealer.owner, wire.router.owner
    pairs = [(dealer, router)] * up + [(router, dealer)] * down
    for pair in pairs:
        world.network.block(*pair)

    def heal() -> None:
        for pair in pairs:
            world.network.unblock(*pair)

    world.timeline.after(fault.lasts_s, heal)


def _flap(world: World, fault: Fault, wire: Wire) -> None:
    ends = wire.dealer.owner, wire.router.owner

    def cut() -> None:
        for one in [one for one in world.network.wires() if (one.dealer.owner, one.router.owner) == ends]:
            world.network.cut(one)

    for number in range(int(fault.lasts_s / 0.3) + 1):
        world.timeline.after(0.3 * number, cut)


def _join_worker(world: World, _fault: Fault) -> bool:
    world.start("worker", max(world.workers, default=-1) + 100)
    return True


def _linked_twice(world: World) -> Iterable[ClientProcess | WorkerProcess]:
    nodes: list[ClientProcess | WorkerProcess] = [*world.clients.values(), *world.workers.values()]
    return (node for node in nodes if not node.is_frozen and len(node.dialler.addresses()) > 1)


def _relink(world: World, fault: Fault, node: ClientProcess | WorkerProcess) -> None:
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


def _ask(world: World, _fault: Fault, client: int, calls: int, *, is_poison: bool = False) -> None:
    for _ in range(calls):
        world.call(client, is_poison=is_poison)


def _wires(world: World) -> Iterable[Wire]:
    return world.network.wires()


def _workers(world: World) -> Iterable[WorkerProcess]:
    return world.workers.values()


def _clients(world: World) -> Iterable[int]:
    return world.clients


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
    "cut": _on(_wires, lambda world, _fault, wire: world.network.cut(wire)),
    "flap": _on(_wires, _flap),
    **_on_each_kind("drain", ("worker", "gateway"), _drain),
    "join_worker": _join_worker,
    "relink": _on(_linked_twice, _relink),
    "overload": _on(_clients, partial(_ask, calls=300)),
    "poison": _on(_clients, partial(_ask, calls=1, is_poison=True)),
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
