"""Gateways and workers of a trial, and what may happen to their processes."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from trials.nodes import Node

__all__ = ["GATEWAYS", "PROCESS_FAULTS", "WORKERS", "Fault", "Town", "by_name"]

GATEWAYS, WORKERS = 2, 3


class Town:
    """The processes; a network between them is its descendant's affair.

    Attributes:
        chance: what everything is drawn from.
        addresses: where clients dial.
        left_out: kinds of faults that this machine cannot do, and why.
    """

    def __init__(
        self, chance: random.Random, gateways: Sequence[Node], workers: Sequence[Node], addresses: Sequence[str]
    ) -> None:
        self.chance = chance
        self.gateways = gateways
        self.workers = workers
        self.addresses = addresses
        self.left_out: dict[str, str] = {}
        self._guests = 0

    @property
    def kinds(self) -> dict[str, Fault]:
        """What may go wrong, by name."""
        return {name: fault for name, fault in self.all_kinds().items() if name not in self.left_out}

    @classmethod
    def all_kinds(cls) -> dict[str, Fault]:
        """What may go wrong on a machine that can do it all."""
        raise NotImplementedError

    def guest(self, name: str) -> Node:
        """Returns a worker that is not there yet."""
        raise NotImplementedError

    def next_guest(self) -> Node:
        """Returns a worker of a new name."""
        self._guests += 1
        return self.guest(f"guest_{self._guests}")

    def everyone(self) -> list[Node]:
        """Returns all nodes."""
        return [*self.gateways, *self.workers]


Fault: TypeAlias = Callable[[Town], Awaitable[None]]


def by_name(*faults: Callable[..., Awaitable[None]]) -> dict[str, Fault]:
    """Returns faults by the names of their functions."""
    return {fault.__name__: fault for fault in faults}


# Faults: each lasts until it returns, and has healed then. ----------------------------------------


async def kill_worker(town: Town) -> None:
    """SIGKILL, and another life half a second later."""
    await _kill(town.chance.choice(town.workers), 0.5)


async def kill_gateway(town: Town) -> None:
    """SIGKILL, and another life a second later."""
    await _kill(town.chance.choice(town.gateways), 1.0)


async def _kill(node: Node, rest_s: float) -> None:
    node.send(signal.SIGKILL)
    await node.ended()
    await asyncio.sleep(rest_s)
    node.start()


async def stop_worker(town: Town) -> None:
    """SIGSTOP, and SIGCONT some seconds later."""
    await _stop(town.chance.choice(town.workers), town.chance.uniform(0.3, 4.0))


async def stop_gateway(town: Town) -> None:
    """SIGSTOP, and SIGCONT some seconds later."""
    await _stop(town.chance.choice(town.gateways), town.chance.uniform(0.3, 4.0))


async def _stop(node: Node, seconds: float) -> None:
    node.send(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    node.send(signal.SIGCONT)


async def drain_worker(town: Town) -> None:
    """SIGTERM, and another life when it has gone."""
    await _drain(town.chance.choice(town.workers))


async def drain_gateway(town: Town) -> None:
    """SIGTERM, and another life when it has gone."""
    await _drain(town.chance.choice(town.gateways))


async def _drain(node: Node) -> None:
    node.send(signal.SIGTERM)
    code = await node.ended()
    if code != 0:
        raise AssertionError(f"{node.name} ended with {code} after SIGTERM")
    node.start()


async def join_worker(town: Town) -> None:
    """A guest comes, works for two seconds, and leaves."""
    guest = town.next_guest()
    guest.start()
    try:
        await asyncio.sleep(2.0)
        guest.send(signal.SIGTERM)
        await guest.ended()
    finally:
        guest.finish()


PROCESS_FAULTS = by_name(kill_worker, stop_worker, drain_worker, join_worker, kill_gateway, stop_gateway, drain_gateway)
