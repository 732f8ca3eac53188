"""Real processes under load while one thing after another goes wrong: `./run.sh chaos`.

    .venv/bin/python -m trials.chaos --seconds 300 --seed 1
    .venv/bin/python -m trials.chaos --network namespaces

Two gateways and three workers, each in a process of its own, dial each other through proxies that can delay,
throttle, cut and block; or, as root of a Linux machine, are on hosts of their own, network namespaces whose cables
are pulled and whose packets are lost. A client sends calls at a steady rate, each with ten seconds of time, and checks
every answer. Faults follow one another in seeded order, every kind in turn, each healed before the next begins.

Nothing may fail, nothing may be wrong, and at the end the books of both gateways must balance and every worker be
ready. The table says how long the slowest call took that was sent while a fault lasted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bench.command import Command, whole, within
from trials.namespaces import CannotError, host_town
from trials.proxied import proxied_town
from trials.town import GATEWAYS, WORKERS, Town
from zmqinfer.aio import AsyncClient
from zmqinfer.errors import ZmqInferError

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


NETWORKS: dict[str, Callable[[random.Random, Path], AbstractContextManager[Town]]] = {
    "proxies": proxied_town,
    "namespaces": host_town,
}


@dataclass
class Tally:
    """What became of one kind of fault."""

    count: int = 0
    slowest_s: float = 0.0


# A kind of fault, and when it began and ended.
Strike: TypeAlias = tuple[str, float, float]


async def trial(town: Town, seconds: float, rate_per_s: int) -> tuple[dict[str, Tally], Load, list[str]]:
    """Does it all; returns what was done, what the load met, and a sentence for each thing that does not hold."""
    strikes: list[Strike] = []
    mistakes: list[str] = []
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
    return _tallied(town, strikes, load), load, mistakes


async def _strike(town: Town, strikes: list[Strike], until: float) -> None:
    kinds: list[str] = []
    while time.perf_counter() < until:
        if not kinds:
            kinds = list(town.kinds)
            town.chance.shuffle(kinds)
        kind = kinds.pop()
        began = time.perf_counter()
        await town.kinds[kind](town)
        strikes.append((kind, began, time.perf_counter()))
        await asyncio.sleep(town.chance.uniform(*_REST_S))
    await asyncio.sleep(1.0)


def _tallied(town: Town, strikes: list[Strike], load: Load) -> dict[str, Tally]:
    """Counts the faults of each kind, once every call has ended: those that a fault held up longest end last."""
    tallies = {kind: Tally() for kind in town.kinds}
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
    command.add_argument("--network", choices=NETWORKS, default="proxies", help="between the processes (%(default)s)")
    command.add_argument("--some-kinds", action="store_true", help="a short run need not have every kind")
    given = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            with NETWORKS[given.network](random.Random(given.seed), Path(folder)) as town:
                tallies, load, mistakes = asyncio.run(trial(town, given.seconds, given.rate))
        except CannotError as error:
            sys.exit(f"not tried: {error}")
        for kind, why in town.left_out.items():
            print(f"left out: {kind}, for {why}")
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
