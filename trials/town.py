"""The processes of a chaos trial, and what is done to them in any network."""

from __future__ import annotations

import asyncio
import random
import signal
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from trials.nodes import Node
from zmqinfer.aio import AsyncClient

__all__ = ["DEADLINE_S", "GATEWAYS", "START_S", "WORKERS", "Fault", "Town"]

GATEWAYS, WORKERS = 2, 3
DEADLINE_S = 10.0
START_S = 30.0

# Lasts until it returns, and has healed then.
Fault: TypeAlias = Callable[[], Awaitable[None]]


class Town(ABC):
    """The processes in a network; a kind of network is a class of its own.

    Attributes:
        chance: what draws victims and times.
        gateways: the gateways, which the kind of network makes; not started.
        workers: the workers, likewise.
        addresses: where clients dial.
        left_out: kinds of faults that cannot happen here, and why.
        victim: who was picked last.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.gateways: list[Node] = []
        self.workers: list[Node] = []
        self.addresses: list[str] = []
        self.left_out: dict[str, str] = {}
        self.victim = ""

    def everyone(self) -> list[Node]:
        """Returns all nodes."""
        return [*self.gateways, *self.workers]

    def a_worker(self) -> Node:
        """Picks a worker."""
        return self._struck(self.chance.choice(self.workers))

    def a_gateway(self) -> Node:
        """Picks a gateway."""
        return self._struck(self.chance.choice(self.gateways))

    def a_node(self) -> Node:
        """Picks a worker or a gateway."""
        return self._struck(self.chance.choice(self.everyone()))

    def _struck(self, node: Node) -> Node:
        self.victim = node.name
        return node

    def client(self) -> AsyncClient:
        """Returns the client that asks."""
        return AsyncClient(self.addresses, deadline_s=DEADLINE_S, connect_timeout_s=START_S)

    @abstractmethod
    def guest(self) -> Node:
        """Returns one more worker, of another name each time."""

    @abstractmethod
    def faults(self) -> dict[str, Fault]:
        """Returns what can go wrong here, by name."""

    def _faults_of_processes(self) -> dict[str, Fault]:
        kinds = (kill_worker, stop_worker, drain_worker, join_worker, kill_gateway, stop_gateway, drain_gateway)
        return {kind.__name__: partial(kind, self) for kind in kinds}


async def kill_worker(town: Town) -> None:
    """SIGKILL, and another life half a second later."""
    await _kill(town.a_worker(), 0.5)


async def kill_gateway(town: Town) -> None:
    """SIGKILL, and another life a second later."""
    await _kill(town.a_gateway(), 1.0)


async def _kill(node: Node, rest_s: float) -> None:
    node.send(signal.SIGKILL)
    await node.ended()
    await asyncio.sleep(rest_s)
    node.start()


async def stop_worker(town: Town) -> None:
    """SIGSTOP, and SIGCONT some seconds later."""
    await _stop(town.a_worker(), town.chance.uniform(0.3, 4.0))


async def stop_gateway(town: Town) -> None:
    """SIGSTOP, and SIGCONT some seconds later."""
    await _stop(town.a_gateway(), town.chance.uniform(0.3, 4.0))


async def _stop(node: Node, seconds: float) -> None:
    node.send(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    node.send(signal.SIGCONT)


async def drain_worker(town: Town) -> None:
    """SIGTERM, and another life when it has gone."""
    await _drain(town.a_worker())


async def drain_gateway(town: Town) -> None:
    """SIGTERM, and another life when it has gone."""
    await _drain(town.a_gateway())


async def _drain(node: Node) -> None:
    node.send(signal.SIGTERM)
    code = await node.ended()
    if code != 0:
        raise AssertionError(f"{node.name} ended with {code} after SIGTERM")
    node.start()


async def join_worker(town: Town) -> None:
    """A guest comes, works for two seconds, and leaves."""
    guest = town.guest()
    town.victim = guest.name
    guest.start()
    try:
        await asyncio.sleep(2.0)
        guest.send(signal.SIGTERM)
        await guest.ended()
    finally:
        guest.finish()
