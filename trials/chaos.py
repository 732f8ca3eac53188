"""Real processes under load while one thing after another goes wrong: `./run.sh chaos`.

    .venv/bin/python -m trials.chaos --seconds 300 --seed 1

Two gateways and three workers, each in a process of its own, dial each other through proxies that can delay,
throttle, cut and block. A client sends calls at a steady rate, each with ten seconds of time, and checks every
answer. Faults follow one another in seeded order, every kind in turn, each healed before the next begins.

Nothing may fail, nothing may be wrong, and at the end the books of both gateways must balance and every worker be
ready. The table says how long the slowest call took that was sent while a fault lasted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bench.command import Command, whole, within
from trials.nodes import Node, address, free_port
from trials.proxy import Link, Proxies
from zmqinfer.aio import AsyncClient
from zmqinfer.errors import ZmqInferError

GATEWAYS, WORKERS = 2, 3
DEADLINE_S = 10.0
_START_S = 30.0
_REST_S = (0.5, 1.5)


@dataclass
class Load:
    """Calls at a steady rate; when each was sent, how long it took, and what went wrong."""

    rate_per_s: int
    times: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    wrong: int = 0
    is_over: bool = False

    async def run(self, client: AsyncClient) -> None:
        """Sends until it is over, and waits for all answers."""
        number = 0
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            while not self.is_over:
                number += 1
                # Now and then a large one, which is many packets.
                size = 50_000 if not number % 200 else 2 + number % 30
                tasks.create_task(self._ask(client, np.full(size, number, np.float32)))
                await asyncio.sleep(max(0.0, began + number / self.rate_per_s - time.perf_counter()))

    async def _ask(self, client: AsyncClient, x: Any) -> None:
        sent_at = time.perf_counter()
        try:
            y = await client.infer("echo", x, deadline_s=DEADLINE_S)
        except ZmqInferError as error:
            self.failures.append(f"at {sent_at:.1f}: {error!r}")
            return
        self.wrong += not np.array_equal(y, x)  # type: ignore[arg-type]
        self.times.append((sent_at, time.perf_counter() - sent_at))

    def slowest(self, since: float, until: float) -> float:
        """Returns how long the slowest call took that was sent between two instants."""
        return max((took for sent_at, took in self.times if since <= sent_at <= until), default=0.0)


class Town:
    """The processes, and the links between them."""

    def __init__(self, proxies: Proxies, folder: Path, chance: random.Random) -> None:
        self.chance = chance
        doors = [(free_port(), free_port()) for _ in range(GATEWAYS)]
        self.gateways = [
            Node(f"gateway_{n}", ["gateway", "--clients", address(front), "--workers", address(back)], folder)
            for n, (front, back) in enumerate(doors)
        ]
        self.client_links = [proxies.add(front) for front, _ in doors]
        self.worker_links = [[proxies.add(back) for _, back in doors] for _ in range(WORKERS)]
        self.workers = [
            Node(
                f"worker_{n}",
                ["worker", "--name", f"worker_{n}", "--gateway", ",".join(address(one.port) for one in links)],
                folder,
            )
            for n, links in enumerate(self.worker_links)
        ]
        self.proxies = proxies
        self.folder = folder
        self.guests = 0

    @property
    def addresses(self) -> list[str]:
        """Where clients dial."""
        return [address(link.port) for link in self.client_links]

    def everyone(self) -> list[Node]:
        """Returns all nodes."""
        return [*self.gateways, *self.workers]

    def a_link(self) -> Link:
        """Picks a connection, a client's or a worker's."""
        return self.chance.choice([*self.client_links, *(link for links in self.worker_links for link in links)])


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
    town.guests += 1
    name = f"guest_{town.guests}"
    where = ",".join(address(link.port) for link in town.worker_links[0])
    guest = Node(name, ["worker", "--name", name, "--gateway", where], town.folder)
    guest.start()
    try:
        await asyncio.sleep(2.0)
        guest.send(signal.SIGTERM)
        await guest.ended()
    finally:
        guest.finish()


async def delay(town: Town) -> None:
    """Everything on a link arrives up to a fifth of a second later."""
    await _change(town.a_link(), 2.0, delay_s=town.chance.uniform(0.05, 0.2))


async def throttle(town: Town) -> None:
    """A link passes 200 kB a second."""
    await _change(town.a_link(), 2.0, bytes_per_s=200_000.0)


async def block_up(town: Town) -> None:
    """Nothing passes towards a gateway."""
    await _change(town.a_link(), town.chance.uniform(0.5, 4.0), is_up_blocked=True)


async def block_down(town: Town) -> None:
    """Nothing passes from a gateway."""
    await _change(town.a_link(), town.chance.uniform(0.5, 4.0), is_down_blocked=True)


async def block_both(town: Town) -> None:
    """Nothing passes either way."""
    await _change(town.a_link(), town.chance.uniform(0.5, 4.0), is_up_blocked=True, is_down_blocked=True)


async def _change(link: Link, seconds: float, **settings: Any) -> None:
    for name, value in settings.items():
        setattr(link, name, value)
    await asyncio.sleep(seconds)
    link.heal()


async def reset(town: Town) -> None:
    """All connections of a link are reset."""
    await asyncio.to_thread(town.proxies.reset, town.a_link())
    await asyncio.sleep(0.5)


async def cut(town: Town) -> None:
    """A link is reset in the middle of a message, some thousand bytes from now."""
    link = town.a_link()
    link.cut_after = town.chance.randrange(1, 20_000)
    give_up_at = time.perf_counter() + 5.0
    while link.cut_after is not None and time.perf_counter() < give_up_at:
        await asyncio.sleep(0.05)
    link.heal()


KINDS: dict[str, Callable[[Town], Awaitable[None]]] = {
    one.__name__: one
    for one in (
        kill_worker, stop_worker, drain_worker, join_worker, kill_gateway, stop_gateway, drain_gateway, delay, throttle,
        block_up, block_down, block_both, reset, cut,
    )
}  # fmt: skip


@dataclass
class Tally:
    """What became of one kind of fault."""

    count: int = 0
    slowest_s: float = 0.0


# A kind of fault, and when it began and ended.
Strike: TypeAlias = tuple[str, float, float]


async def trial(seconds: float, seed: int, rate_per_s: int, folder: Path) -> tuple[dict[str, Tally], Load, list[str]]:
    """Does it all; returns what was done, what the load met, and a sentence for each thing that does not hold."""
    chance = random.Random(seed)
    strikes: list[Strike] = []
    mistakes: list[str] = []
    with Proxies() as proxies:
        town = Town(proxies, folder, chance)
        try:
            for node in town.everyone():
                node.start()
            async with AsyncClient(town.addresses, deadline_s=DEADLINE_S, connect_timeout_s=_START_S) as client:
                await _until_ready(client, _START_S)
                load = Load(rate_per_s)
                running = asyncio.create_task(load.run(client))
                try:
                    await _strike(town, strikes, time.perf_counter() + seconds)
                except AssertionError as error:
                    mistakes.append(str(error))
                load.is_over = True
                await running
                try:
                    mistakes += _unbalanced(await _until_ready(client, _START_S))
                except TimeoutError as error:
                    mistakes.append(str(error))
        finally:
            # Workers first: the last that they say is for their gateways.
            for node in reversed(town.everyone()):
                node.finish()
    return _tallied(strikes, load), load, mistakes


async def _strike(town: Town, strikes: list[Strike], until: float) -> None:
    kinds: list[str] = []
    while time.perf_counter() < until:
        if not kinds:
            kinds = list(KINDS)
            town.chance.shuffle(kinds)
        kind = kinds.pop()
        began = time.perf_counter()
        await KINDS[kind](town)
        strikes.append((kind, began, time.perf_counter()))
        await asyncio.sleep(town.chance.uniform(*_REST_S))
    await asyncio.sleep(1.0)


def _tallied(strikes: list[Strike], load: Load) -> dict[str, Tally]:
    """Counts the faults of each kind, once every call has ended: those that a fault held up longest end last."""
    tallies = {kind: Tally() for kind in KINDS}
    for kind, began, ended in strikes:
        tally = tallies[kind]
        tally.count += 1
        tally.slowest_s = max(tally.slowest_s, load.slowest(began, ended))
    return tallies


async def _until_ready(client: AsyncClient, within_s: float) -> list[dict[str, Any]]:
    give_up_at = time.perf_counter() + within_s
    while True:
        with contextlib.suppress(ZmqInferError):
            gateways = await client.status(timeout_s=2.0)
            states = [[worker["state"] for worker in one["workers"]] for one in gateways]
            if [one.count("ready") for one in states] == [WORKERS] * GATEWAYS:
                return gateways
        if time.perf_counter() > give_up_at:
            raise TimeoutError(f"not all of {WORKERS} workers are ready at both gateways after {within_s:g} s")
        await asyncio.sleep(0.2)


def _unbalanced(gateways: list[dict[str, Any]]) -> list[str]:
    mistakes = []
    for one in gateways:
        counts = one["requests"]
        if counts["received"] != counts["refused"] + counts["accepted"]:
            mistakes.append(f"{one['address']}: received is not refused + accepted: {counts}")
        if counts["accepted"] != counts["answered"] + counts["pending"] or counts["pending"]:
            mistakes.append(f"{one['address']}: accepted is not answered, though nothing is asked any more: {counts}")
        if one["stray_replies"]:
            mistakes.append(f"{one['address']}: {one['stray_replies']} replies to what was not asked")
    return mistakes


def judged(tallies: dict[str, Tally], load: Load, mistakes: list[str], *, all_kinds: bool) -> list[str]:
    """Returns a sentence for each thing that does not hold."""
    found = list(mistakes)
    if load.failures:
        found.append(f"{len(load.failures):,} calls failed, the first {load.failures[0]}")
    if load.wrong:
        found.append(f"{load.wrong:,} answers were wrong")
    if not load.times:
        found.append("no call was answered")
    missing = [kind for kind, tally in tallies.items() if not tally.count]
    if all_kinds and missing:
        found.append(f"never happened: {', '.join(missing)}; give it more time")
    return found


def main() -> None:
    """Runs the trial and prints its table; exit code 1 if anything does not hold."""
    command = Command("python -m trials.chaos", __doc__)
    command.add_argument("--seconds", type=within, default=300.0)
    command.add_argument("--seed", type=whole, default=1)
    command.add_argument("--rate", type=whole, default=500, help="calls a second")
    command.add_argument("--some-kinds", action="store_true", help="a short run need not have every kind")
    given = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tallies, load, mistakes = asyncio.run(trial(given.seconds, given.seed, given.rate, Path(folder)))
        print(f"{'fault':<16}{'times':>6}{'slowest call meanwhile':>26}")
        for kind, tally in tallies.items():
            print(f"{kind:<16}{tally.count:>6}{tally.slowest_s:>24.2f} s")
        right = len(load.times) - load.wrong
        print(f"{right:,} calls answered right, {load.wrong} wrong, {len(load.failures)} failed (seed {given.seed})")
        found = judged(tallies, load, mistakes, all_kinds=not given.some_kinds)
        for sentence in found:
            print(f"not so: {sentence}", file=sys.stderr)
        if found:
            for log in sorted(Path(folder).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
        sys.exit(bool(found))


if __name__ == "__main__":
    main()
