"""A town on loopback, whose links are proxies that delay, throttle, block and cut."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trials.nodes import Node, address, free_port
from trials.proxy import Link, Proxies
from trials.town import GATEWAYS, PROCESS_FAULTS, WORKERS, Fault, Town, by_name

__all__ = ["ProxiedTown", "proxied_town"]


class ProxiedTown(Town):
    """Each node dials each other one through a proxy of its own."""

    def __init__(self, chance: random.Random, folder: Path, proxies: Proxies) -> None:
        doors = [(free_port(), free_port()) for _ in range(GATEWAYS)]
        self._client_links = [proxies.add(front) for front, _ in doors]
        self._worker_links = [[proxies.add(back) for _, back in doors] for _ in range(WORKERS)]
        self.proxies = proxies
        self._folder = folder
        super().__init__(
            chance,
            [
                Node(f"gateway_{n}", ["gateway", "--clients", address(front), "--workers", address(back)], folder)
                for n, (front, back) in enumerate(doors)
            ],
            [self._worker(f"worker_{n}", links) for n, links in enumerate(self._worker_links)],
            [address(link.port) for link in self._client_links],
        )

    def _worker(self, name: str, links: list[Link]) -> Node:
        where = ",".join(address(link.port) for link in links)
        return Node(name, ["worker", "--name", name, "--gateway", where], self._folder)

    def guest(self, name: str) -> Node:
        """Returns a worker behind the first one's links."""
        return self._worker(name, self._worker_links[0])

    @classmethod
    def all_kinds(cls) -> dict[str, Fault]:
        """What may go wrong: with processes, and with links."""
        return PROCESS_FAULTS | LINK_FAULTS

    def a_link(self) -> Link:
        """Picks a connection, a client's or a worker's."""
        return self.chance.choice([*self._client_links, *(link for links in self._worker_links for link in links)])


@contextlib.contextmanager
def proxied_town(chance: random.Random, folder: Path) -> Iterator[ProxiedTown]:
    """Makes the links; starts no node."""
    with Proxies() as proxies:
        yield ProxiedTown(chance, folder, proxies)


# Faults: each lasts until it returns, and has healed then. ----------------------------------------


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


LINK_FAULTS = by_name(delay, throttle, block_up, block_down, block_both, reset, cut)
