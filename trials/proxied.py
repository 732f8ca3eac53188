"""A town on loopback whose nodes dial each other through proxies, and what goes wrong between them there."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from trials.nodes import Node, address, free_port
from trials.proxy import Link, Proxies
from trials.town import GATEWAYS, WORKERS, Fault, Town

__all__ = ["ProxiedTown", "proxied_town"]


@contextmanager
def proxied_town(folder: Path, chance: random.Random) -> Iterator[Town]:
    """Makes the proxies and the nodes, and ends the proxies."""
    with Proxies() as proxies:
        yield ProxiedTown(proxies, folder, chance)


class ProxiedTown(Town):
    """The processes, and the links between them."""

    def __init__(self, proxies: Proxies, folder: Path, chance: random.Random) -> None:
        super().__init__(chance)
        doors = [(free_port(), free_port()) for _ in range(GATEWAYS)]
        self.gateways = [
            Node(f"gateway_{n}", ["gateway", "--clients", address(front), "--workers", address(back)], folder)
            for n, (front, back) in enumerate(doors)
        ]
        self.client_links = [proxies.add(front) for front, _ in doors]
        self.worker_links = [[proxies.add(back) for _, back in doors] for _ in range(WORKERS)]
        self.addresses = [address(link.port) for link in self.client_links]
        self.proxies = proxies
        self._folder = folder
        self._guests = 0
        self.workers = [self._worker(f"worker_{n}", links) for n, links in enumerate(self.worker_links)]

    def _worker(self, name: str, links: list[Link]) -> Node:
        where = ",".join(address(one.port) for one in links)
        return Node(name, ["worker", "--demo", "--name", name, "--gateway", where], self._folder)

    def guest(self) -> Node:
        """Returns one more worker, on the links of the first."""
        self._guests += 1
        return self._worker(f"guest_{self._guests}", self.worker_links[0])

    def a_link(self) -> Link:
        """Picks a connection, a client's or a worker's."""
        link = self.chance.choice([*self.client_links, *(link for links in self.worker_links for link in links)])
        self.victim = f"the link to port {link.target}"
        return link

    def faults(self) -> dict[str, Fault]:
        """Returns what can go wrong with processes, and with links."""
        kinds = (delay, throttle, block_up, block_down, block_both, reset, cut)
        return {**self._faults_of_processes(), **{kind.__name__: partial(kind, self) for kind in kinds}}


async def delay(town: ProxiedTown) -> None:
    """Everything on a link arrives up to a fifth of a second later."""
    await _change(town.a_link(), 2.0, delay_s=town.chance.uniform(0.05, 0.2))


async def throttle(town: ProxiedTown) -> None:
    """A link passes 200 kB a second."""
    await _change(town.a_link(), 2.0, bytes_per_s=200_000.0)


async def block_up(town: ProxiedTown) -> None:
    """Nothing passes towards a gateway."""
    await _change(town.a_link(), town.chance.uniform(0.5, 4.0), is_up_blocked=True)


async def block_down(town: ProxiedTown) -> None:
    """Nothing passes from a gateway."""
    await _change(town.a_link(), town.chance.uniform(0.5, 4.0), is_down_blocked=True)


async def block_both(town: ProxiedTown) -> None:
    """Nothing passes either way."""
    await _change(town.a_link(), town.chance.uniform(0.5, 4.0), is_up_blocked=True, is_down_blocked=True)


async def _change(link: Link, seconds: float, **settings: Any) -> None:
    for name, value in settings.items():
        setattr(link, name, value)
    await asyncio.sleep(seconds)
    link.heal()


async def reset(town: ProxiedTown) -> None:
    """All connections of a link are reset."""
    await asyncio.to_thread(town.proxies.reset, town.a_link())
    await asyncio.sleep(0.5)


async def cut(town: ProxiedTown) -> None:
    """A link is reset in the middle of a message, some thousand bytes from now."""
    link = town.a_link()
    link.cut_after = town.chance.randrange(1, 20_000)
    give_up_at = time.perf_counter() + 5.0
    while link.cut_after is not None and time.perf_counter() < give_up_at:
        await asyncio.sleep(0.05)
    link.heal()
