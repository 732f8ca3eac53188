"""A town whose nodes are hosts of their own in network namespaces, and what goes wrong with their network there.

What is on its way when a cable is pulled is lost as in a real network: no FIN, no RST, and TCP of the kernel decides
when it tries again. Each of these faults says how often it struck: one that touched no frame ends the trial.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

from trials.netns import Drop, Host, Network, prepare, refusal
from trials.nodes import Node
from trials.town import DEADLINE_S, GATEWAYS, START_S, WORKERS, Fault, Town
from zmqinfer.aio import AsyncClient

__all__ = ["NamespaceTown", "namespace_town"]

_CLIENTS_PORT, _WORKERS_PORT = 5555, 5556
# 200 kB a second, as much as a link behind proxies has.
_SLOW = "tbf rate 1600kbit burst 16kb latency 400ms"


@contextmanager
def namespace_town(folder: Path, chance: random.Random) -> Iterator[Town]:
    """Makes the hosts, has the caller's thread on the client's, and removes them all.

    Raises:
        Missing: hosts cannot be made on this machine.
    """
    prepare()
    with Network() as network:
        town = NamespaceTown(network, folder, chance)
        with town.asker.namespace.entered():
            yield town


class NamespaceTown(Town):
    """The processes, each on a host of its own.

    Attributes:
        asker: the client's host.
        homes: the hosts of the nodes, by their names.
    """

    def __init__(self, network: Network, folder: Path, chance: random.Random) -> None:
        super().__init__(chance)
        self._folder = folder
        self._guests = 0
        self.asker = network.host("client")
        self._inn = network.host("inn")
        names = [*(f"gateway_{n}" for n in range(GATEWAYS)), *(f"worker_{n}" for n in range(WORKERS))]
        self.homes = {name: network.host(name) for name in names}
        doors = [self.homes[name] for name in names[:GATEWAYS]]
        self.addresses = [f"tcp://{host.address}:{_CLIENTS_PORT}" for host in doors]
        self._where = ",".join(f"tcp://{host.address}:{_WORKERS_PORT}" for host in doors)
        self.gateways = [self._gateway(host) for host in doors]
        self.workers = [self._worker(name, self.homes[name]) for name in names[GATEWAYS:]]
        self.left_out = self._impossible()

    def _gateway(self, host: Host) -> Node:
        front, back = (f"tcp://{host.address}:{port}" for port in (_CLIENTS_PORT, _WORKERS_PORT))
        return Node(host.name, ["gateway", "--clients", front, "--workers", back], self._folder, host.namespace.entered)

    def _worker(self, name: str, host: Host) -> Node:
        command = ["worker", "--demo", "--name", name, "--gateway", self._where]
        return Node(name, command, self._folder, host.namespace.entered)

    def _impossible(self) -> dict[str, str]:
        """Tries each means once, on the host that nobody lives on yet."""
        whys = {
            _BY_FILTER: refusal(lambda: self._inn.lose(Drop(is_from=True, part=0.5)), self._inn.lose_nothing),
            _BY_BUCKET: refusal(lambda: self._inn.queue(_SLOW), self._inn.queue_nothing),
            _BY_NETEM: refusal(lambda: self._inn.queue("netem delay 1ms"), self._inn.queue_nothing),
        }
        return {kind.__name__: why for kinds, why in whys.items() if why for kind in kinds}

    def client(self) -> AsyncClient:
        """Returns the client that asks; it lays nothing in shared memory, which hosts do not share."""
        return AsyncClient(self.addresses, deadline_s=DEADLINE_S, connect_timeout_s=START_S, shared_memory_mb=0)

    def guest(self) -> Node:
        """Returns one more worker, on the host that is kept for guests."""
        self._guests += 1
        return self._worker(f"guest_{self._guests}", self._inn)

    def a_host(self) -> Host:
        """Picks a host, a node's or the client's."""
        host = self.chance.choice([self.asker, *self.homes.values()])
        self.victim = host.name
        return host

    def faults(self) -> dict[str, Fault]:
        """Returns what can go wrong with processes and hosts, and with the network as far as this kernel lets it."""
        kinds = (*_BY_HAND, *_BY_FILTER, *_BY_BUCKET, *_BY_NETEM)
        own: dict[str, Fault] = {kind.__name__: partial(kind, self) for kind in kinds}
        return {**self._faults_of_processes(), **{kind: own[kind] for kind in own if kind not in self.left_out}}


async def pull_cable(town: NamespaceTown) -> None:
    """A host is gone for some seconds, and its peers are told nothing."""
    host = town.a_host()
    await asyncio.to_thread(host.pull)
    await asyncio.sleep(town.chance.uniform(0.5, 4.0))
    await asyncio.to_thread(host.plug)
    await asyncio.to_thread(host.settle)


async def lose_host(town: NamespaceTown) -> None:
    """A node's host is gone for longer than a call has time, so what it held has to go elsewhere."""
    host = town.homes[town.a_node().name]
    await asyncio.to_thread(host.pull)
    await asyncio.sleep(DEADLINE_S + 1.0)
    await asyncio.to_thread(host.plug)
    await asyncio.to_thread(host.settle)


async def shut_device(town: NamespaceTown) -> None:
    """A host takes its own device down for some seconds, so its sockets hear that there is no network."""
    host = town.a_host()
    await asyncio.to_thread(host.shut)
    await asyncio.sleep(town.chance.uniform(0.5, 4.0))
    await asyncio.to_thread(host.open)
    await asyncio.to_thread(host.settle)


async def flap(town: NamespaceTown) -> None:
    """A cable has a loose contact."""
    host = town.a_host()
    for _ in range(town.chance.randint(4, 8)):
        await asyncio.to_thread(host.pull)
        await asyncio.sleep(town.chance.uniform(0.05, 0.4))
        await asyncio.to_thread(host.plug)
        await asyncio.sleep(town.chance.uniform(0.05, 0.4))
    await asyncio.to_thread(host.settle)


async def lose_power(town: NamespaceTown) -> None:
    """A node's host goes off and comes back: its peers are told nothing, and it remembers nothing."""
    node = town.a_node()
    host = town.homes[node.name]
    await asyncio.to_thread(host.pull)
    node.send(signal.SIGKILL)
    await node.ended()
    await asyncio.sleep(town.chance.uniform(0.3, 3.0))
    await asyncio.to_thread(host.plug)
    node.start()


async def drop_from(town: NamespaceTown) -> None:
    """A host hears everybody, and nobody hears it."""
    await _lose(town, town.a_host(), Drop(is_from=True))


async def drop_to(town: NamespaceTown) -> None:
    """Everybody hears a host, and it hears nobody."""
    await _lose(town, town.a_host(), Drop(is_from=False))


async def partition(town: NamespaceTown) -> None:
    """A worker and a gateway do not hear each other; all others do."""
    gateway, worker = town.a_gateway(), town.a_worker()
    town.victim = f"{worker.name} and {gateway.name}"
    peer = town.homes[gateway.name].address
    drops = (Drop(is_from=True, peer=peer), Drop(is_from=False, peer=peer))
    await _lose(town, town.homes[worker.name], *drops)


async def lose_some(town: NamespaceTown) -> None:
    """A cable loses 10 to 30 of 100 frames, either way."""
    part = town.chance.uniform(0.1, 0.3)
    await _lose(town, town.a_host(), Drop(is_from=True, part=part), Drop(is_from=False, part=part))


async def _lose(town: NamespaceTown, host: Host, *drops: Drop) -> None:
    await asyncio.to_thread(host.lose, *drops)
    # Twice as long as peers are silent at most: so one that drops nothing does not work.
    await asyncio.sleep(town.chance.uniform(1.0, 4.0))
    if not await asyncio.to_thread(host.lose_nothing):
        raise AssertionError(f"no frame was dropped at {town.victim}")


async def throttle(town: NamespaceTown) -> None:
    """A cable passes 200 kB a second each way; what is too much for its queue is lost."""
    await _queue(town, _SLOW)


async def delay(town: NamespaceTown) -> None:
    """Everything comes up to a fifth of a second later, in order."""
    await _queue(town, f"netem delay {town.chance.randint(50, 200)}ms")


async def scramble(town: NamespaceTown) -> None:
    """A cable delays, loses, duplicates and changes the order, all by chance."""
    loss = town.chance.randint(1, 10)
    await _queue(town, f"netem delay 20ms 15ms loss {loss}% duplicate 10% reorder 20% 50%")


async def _queue(town: NamespaceTown, how: str) -> None:
    host = town.a_host()
    await asyncio.to_thread(host.queue, how)
    await asyncio.sleep(town.chance.uniform(2.0, 4.0))
    if not await asyncio.to_thread(host.queue_nothing):
        raise AssertionError(f"no frame went through the queue at {host.name}: {how}")


_Kind: TypeAlias = Callable[[NamespaceTown], Awaitable[None]]
# By what they need of the kernel.
_BY_HAND: tuple[_Kind, ...] = (pull_cable, lose_host, shut_device, flap, lose_power)
_BY_FILTER: tuple[_Kind, ...] = (drop_from, drop_to, partition, lose_some)
_BY_BUCKET: tuple[_Kind, ...] = (throttle,)
_BY_NETEM: tuple[_Kind, ...] = (delay, scramble)
