"""Real processes under load while one thing after another goes wrong: `./run.sh chaos`.

    .venv/bin/python -m trials.chaos --seconds 300 --seed 1
    .venv/bin/python -m trials.chaos --seconds 300 --seed 1 --network namespaces

Two gateways and three workers, each in a process of its own, dial each other through proxies that can delay,
throttle, cut and block; or each of them, and the client, is a host of its own in a network namespace, whose cable is
pulled and whose frames are lost. The client sends calls at a steady rate, each with ten seconds of time, and checks
every answer. Faults follow one another in seeded order, every kind in turn, each healed before the next begins.

Nothing may fail, nothing may be wrong, and at the end the books of both gateways must balance and every worker be
ready. The table says how long the slowest call took that was sent while a fault lasted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.command import Command, whole, within
from bench.packages import Missing
from trials.namespaces import namespace_town
from trials.proxied import proxied_town
from trials.town import DEADLINE_S, GATEWAYS, START_S, WORKERS, Fault, Town
from zmqinfer.aio import AsyncClient
from zmqinfer.errors import ZmqInferError

NETWORKS: dict[str, Callable[[Path, random.Random], AbstractContextManager[Town]]] = {
    "proxies": proxied_town,
    "namespaces": namespace_town,
}
_REST_S = (0.5, 1.5)


@dataclass
class Load:
    """Calls at a steady rate; when each was to be sent, how long it took from then, and what went wrong."""

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
                due_at = began + number / self.rate_per_s
                await asyncio.sleep(max(0.0, due_at - time.perf_counter()))
                tasks.create_task(self._ask(client, np.full(size, number, np.float32), due_at))

    async def _ask(self, client: AsyncClient, x: Any, sent_at: float) -> None:
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


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault that happened: its kind, whom it struck, and when it began and had healed."""

    kind: str
    victim: str
    began: float
    ended: float


@dataclass
class Tally:
    """What became of one kind of fault."""

    count: int = 0
    slowest_s: float = 0.0


@dataclass
class Outcome:
    """What a trial was, and what it met.

    Attributes:
        load: the calls.
        kinds: the kinds of faults that were to happen.
        left_out: those that cannot happen on this machine, and why.
        strikes: what happened, in order.
        mistakes: a sentence for each thing that does not hold, beside what the load met.
    """

    load: Load
    kinds: list[str]
    left_out: dict[str, str] = field(default_factory=dict)
    strikes: list[Strike] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def tallies(self) -> dict[str, Tally]:
        """Counts the faults of each kind; after the last call, for those that a fault held up longest end last."""
        tallies = {kind: Tally() for kind in self.kinds}
        for strike in self.strikes:
            tally = tallies[strike.kind]
            tally.count += 1
            tally.slowest_s = max(tally.slowest_s, self.load.slowest(strike.began, strike.ended))
        return tallies

    def judged(self, *, all_kinds: bool) -> list[str]:
        """Returns a sentence for each thing that does not hold."""
        found = list(self.mistakes)
        if self.load.failures:
            found.append(f"{len(self.load.failures):,} calls failed, the first {self.load.failures[0]}")
        if self.load.wrong:
            found.append(f"{self.load.wrong:,} answers were wrong")
        if not self.load.times:
            found.append("no call was answered")
        missing = [kind for kind, tally in self.tallies().items() if not tally.count]
        if all_kinds and missing:
            found.append(f"never happened: {', '.join(missing)}; give it more --seconds, or say --some-kinds")
        return found


async def trial(town: Town, seconds: float, rate_per_s: int, only: list[str]) -> Outcome:
    """Does it all, with the kinds of faults in `only`, or with every kind."""
    faults = {kind: fault for kind, fault in town.faults().items() if not only or kind in only}
    left_out = {kind: why for kind, why in town.left_out.items() if not only or kind in only}
    if unknown := set(only) - set(faults) - set(left_out):
        raise ValueError(f"no kinds of faults here: {', '.join(sorted(unknown))}; there are {', '.join(town.faults())}")
    outcome = Outcome(Load(rate_per_s), list(faults), left_out)
    if not faults:
        outcome.mistakes.append("no kind of fault is left to try")
        return outcome
    try:
        for node in town.everyone():
            node.start()
        async with town.client() as client:
            await _until_ready(client, START_S)
            running = asyncio.create_task(outcome.load.run(client))
            try:
                await _strike(town, faults, outcome.strikes, time.perf_counter() + seconds)
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                outcome.mistakes.append(str(error))
            finally:
                outcome.load.is_over = True
            await running
            try:
                outcome.mistakes += _unbalanced(await _until_ready(client, START_S))
            except TimeoutError as error:
                outcome.mistakes.append(str(error))
    finally:
        # Workers first: the last that they say is for their gateways.
        for node in reversed(town.everyone()):
            node.finish()
    return outcome


async def _strike(town: Town, faults: dict[str, Fault], strikes: list[Strike], until: float) -> None:
    kinds: list[str] = []
    while time.perf_counter() < until:
        if not kinds:
            kinds = list(faults)
            town.chance.shuffle(kinds)
        kind = kinds.pop()
        began = time.perf_counter()
        try:
            await faults[kind]()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            raise AssertionError(f"{kind}: {error}") from error
        strikes.append(Strike(kind, town.victim, began, time.perf_counter()))
        await asyncio.sleep(town.chance.uniform(*_REST_S))
    await asyncio.sleep(1.0)


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


def main() -> None:
    """Runs the trial and prints its table; exit code 1 if anything does not hold."""
    command = Command("python -m trials.chaos", __doc__)
    command.add_argument("--seconds", type=within, default=300.0)
    command.add_argument("--seed", type=whole, default=1)
    command.add_argument("--rate", type=whole, default=500, help="calls a second")
    command.add_argument("--network", choices=list(NETWORKS), default="proxies", help="what lies between the nodes")
    command.add_argument("--only", nargs="+", default=[], metavar="KIND", help="these kinds of faults and no others")
    command.add_argument("--some-kinds", action="store_true", help="a short run need not have every kind")
    given = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            with NETWORKS[given.network](Path(folder), random.Random(given.seed)) as town:
                outcome = asyncio.run(trial(town, given.seconds, given.rate, given.only))
        except (Missing, ValueError) as error:
            command.exit(2, f"{command.prog}: {error}\n")
        _print_table(outcome, given.seed)
        found = outcome.judged(all_kinds=not given.some_kinds)
        if found:
            print_mistakes(found, outcome, Path(folder))
        sys.exit(bool(found))


def _print_table(outcome: Outcome, seed: int) -> None:
    print(f"{'fault':<16}{'times':>6}{'slowest call meanwhile':>26}")
    for kind, tally in outcome.tallies().items():
        print(f"{kind:<16}{tally.count:>6}{tally.slowest_s:>24.2f} s")
    for kind, why in outcome.left_out.items():
        print(f"{kind:<16}{'left out':>10}: {why}")
    load = outcome.load
    right = len(load.times) - load.wrong
    print(f"{right:,} calls answered right, {load.wrong} wrong, {len(load.failures)} failed (seed {seed})")


def print_mistakes(found: list[str], outcome: Outcome, folder: Path) -> None:
    """Says who was struck when, on the clock of the failed calls, what the nodes said last, and what does not hold."""
    for one in outcome.strikes:
        print(f"{one.began:.1f} to {one.ended:.1f}: {one.kind} of {one.victim}", file=sys.stderr)
    for log in sorted(folder.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
    # Behind the logs, which are long: the last lines are what people see.
    for sentence in found:
        print(f"not so: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    main()
