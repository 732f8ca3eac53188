"""Hostile messages for a living gateway, while an honest client checks that it is served: `./run.sh fuzz`.

    .venv/bin/python -m trials.fuzz_live --messages 100000

Starts a gateway and two workers. Attackers with ZeroMQ's own sockets send changed messages to both addresses, half
of them within a session, and dial again when they are cut off; others send to the bare port what is no ZeroMQ at
all. Nobody needs a password here, so there are things that the attackers do not try: they take no name of a worker
that is there, drain none, and serve no model that the honest client asks for.

The gateway must outlive it, its books must balance, its memory and descriptors must not grow, and the honest client
must get every answer, all along. Linux only, for it reads /proc. The exit code is 1 if something did not hold, with
a sentence for each.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from bench.command import Command, whole
from trials.hostile import BARE, DIALLED, KINDS_TO_CLIENTS, KINDS_TO_WORKERS, Dialler, Knocker
from trials.soak.verdict import unbalanced
from zmqinfer import Client
from zmqinfer.errors import ProtocolError, UsageError, ZmqInferError
from zmqinfer.launch.processes import ProcessCluster
from zmqinfer.tensor import Array

__all__ = ["Seen", "judged"]

WORKERS = 2
DIALLERS = 96
IN_FLIGHT = 64
MAX_MORE_BYTES = 64 * 2**20
# A connection or two may still be on its way out.
MAX_MORE_DESCRIPTORS = 4
MAX_SILENCE_S = 3.0
SETTLE_S = 10.0
LOOK_EVERY = 64


@dataclass
class Honest:
    """A client that asks all the time, and what became of its calls."""

    client: Client
    is_over: bool = False
    calls: int = 0
    wrong: int = 0
    failures: list[str] = field(default_factory=list)
    longest_silence_s: float = 0.0

    def run(self) -> None:
        """Asks until it is over."""
        asked: deque[NDArray[np.float32]] = deque()

        def inputs() -> Iterator[Array]:
            number = 0
            while not self.is_over:
                number += 1
                asked.append(np.arange(1 + number % 40, dtype=np.float32) + number % 2**20)
                yield asked[-1]

        heard_at = time.monotonic()
        try:
            for y in self.client.infer_many("echo", inputs(), in_flight=IN_FLIGHT, return_errors=True):
                now = time.monotonic()
                self.longest_silence_s = max(self.longest_silence_s, now - heard_at)
                heard_at = now
                x = asked.popleft()
                if isinstance(y, ZmqInferError):
                    self.failures.append(repr(y))
                elif not (isinstance(y, np.ndarray) and y.dtype == x.dtype and np.array_equal(x, y)):
                    self.wrong += 1
                else:
                    self.calls += 1
        except (ZmqInferError, UsageError) as error:  # it cannot go on at all, or it was closed under us
            self.failures.append(repr(error))
        self.longest_silence_s = max(self.longest_silence_s, time.monotonic() - heard_at)


@dataclass
class Seen:
    """What the trial has seen; bytes and descriptors are the gateway's."""

    sent: Counter[str] = field(default_factory=Counter)
    dialled: int = 0
    took_s: float = 0.0
    calls: int = 0
    wrong: int = 0
    failures: list[str] = field(default_factory=list)
    longest_silence_s: float = 0.0
    bytes_before: int = 0
    bytes_after: int = 0
    descriptors_before: int = 0
    descriptors_after: int = 0
    settled_s: float = 0.0
    dead: list[str] = field(default_factory=list)
    last_words: list[str] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    broken_answers: list[str] = field(default_factory=list)


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _attack(cluster: ProcessCluster, messages: int, seed: int, seen: Seen, after_warm_up: Callable[[], None]) -> None:
    """Sends so many hostile messages, in an order that the seed decides."""
    chance = random.Random(seed)
    addresses = (cluster.clients_address, cluster.workers_address)
    doors = tuple(zip(addresses, (KINDS_TO_CLIENTS, KINDS_TO_WORKERS), strict=True))
    names = [*DIALLED, *BARE]
    weights = [weight for weight, _ in (*DIALLED.values(), *BARE.values())]
    knocker = Knocker(addresses, chance)
    context: zmq.Context[Any] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 8_192)
    diallers: list[Dialler] = []
    try:
        for number in range(messages):
            if number == messages // 10:
                after_warm_up()
            if number % LOOK_EVERY == 0 and not cluster.pids[0]:
                return
            name = chance.choices(names, weights)[0]
            seen.sent[name] += 1
            if name in BARE:
                knocker.send(BARE[name][1](chance))
                continue
            while len(diallers) < DIALLERS:
                diallers.append(Dialler(context, *doors[len(diallers) % len(doors)], chance))
                seen.dialled += 1
            at = chance.randrange(len(diallers))
            dialler = diallers[at]
            try:
                dialler.send(DIALLED[name][1](chance.choice(dialler.kinds), chance))
            except ProtocolError as error:
                seen.broken_answers.append(str(error))
            if dialler.is_spent:
                dialler.close()
                diallers[at] = Dialler(context, *doors[at % len(doors)], chance)
                seen.dialled += 1
    finally:
        knocker.close()
        for dialler in diallers:
            dialler.close()
        context.term()  # returns when the last has lingered


@contextlib.contextmanager
def _standard_error_in(descriptor: int) -> Iterator[None]:
    """Lets the processes that are started within this block write to another file."""
    own = os.dup(2)
    try:
        os.dup2(descriptor, 2)
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)


def trial(messages: int, seed: int) -> Seen:
    """Does it all, and returns what was seen."""
    seen = Seen()
    with contextlib.ExitStack() as stack:
        # Each attacker that is cut off is a line in the log; its end is shown if somebody died.
        log = stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
        with _standard_error_in(log.fileno()):
            cluster = stack.enter_context(ProcessCluster(WORKERS))
        client = stack.enter_context(Client(cluster.clients_address))
        before = cluster.pids
        gateway = before[0]
        honest = Honest(client)
        thread = threading.Thread(target=honest.run, name="honest", daemon=True)
        thread.start()
        try:
            while not honest.calls and not honest.failures:
                time.sleep(0.01)
            seen.descriptors_before = _descriptors(gateway)

            def after_warm_up() -> None:
                seen.bytes_before = _resident_bytes(gateway)

            began = time.monotonic()
            with contextlib.suppress(OSError):  # of a gateway that is gone, which is said below
                _attack(cluster, messages, seed, seen, after_warm_up)
            seen.took_s = time.monotonic() - began
        finally:
            honest.is_over = True
            thread.join(SETTLE_S)
        if thread.is_alive():
            seen.failures.append(f"the last answers did not come within {SETTLE_S:g} s")
        after = cluster.pids
        if after[0] != gateway:
            seen.dead.append("the gateway")
        seen.dead += [
            f"worker_{n}" for n, (was, now) in enumerate(zip(before[1], after[1], strict=True), 1) if was != now
        ]
        if seen.dead:
            log.seek(0)
            seen.last_words = log.read().strip().splitlines()[-3:]
        if after[0]:
            began = time.monotonic()
            give_up_at = began + SETTLE_S
            limit = seen.descriptors_before + MAX_MORE_DESCRIPTORS
            while (open_now := _descriptors(gateway)) > limit and time.monotonic() < give_up_at:
                time.sleep(0.05)
            seen.descriptors_after, seen.settled_s = open_now, time.monotonic() - began
            seen.bytes_after = _resident_bytes(gateway)
            with contextlib.suppress(ZmqInferError):
                seen.status = client.status()[0]
    seen.calls, seen.wrong, seen.longest_silence_s = honest.calls, honest.wrong, honest.longest_silence_s
    seen.failures += honest.failures
    return seen


def judged(seen: Seen) -> list[str]:
    """Returns a sentence for each thing that does not hold."""
    found = [f"{who} ended; the log's end: {' / '.join(seen.last_words)}" for who in seen.dead]
    if seen.failures:
        found.append(f"{len(seen.failures):,} honest calls failed, the first with {seen.failures[0]}")
    if seen.wrong:
        found.append(f"{seen.wrong:,} honest calls were answered wrongly")
    if not seen.calls:
        found.append("no honest call was answered")
    if seen.longest_silence_s > MAX_SILENCE_S:
        found.append(
            f"the honest client got nothing for {seen.longest_silence_s:.1f} s, expected at most {MAX_SILENCE_S:g} s"
        )
    if seen.broken_answers:
        found.append(f"the gateway sent {len(seen.broken_answers):,} broken messages, first {seen.broken_answers[0]}")
    if "the gateway" in seen.dead:
        return found
    more = seen.bytes_after - seen.bytes_before
    if more >= MAX_MORE_BYTES:
        found.append(f"the gateway's memory grew by {more / 2**20:.0f} MiB, expected less than {MAX_MORE_BYTES >> 20}")
    if seen.descriptors_after > seen.descriptors_before + MAX_MORE_DESCRIPTORS:
        found.append(
            f"the gateway has {seen.descriptors_after} descriptors {SETTLE_S:g} s later,"
            f" expected about {seen.descriptors_before}"
        )
    if not seen.status:
        found.append("the gateway did not tell its status")
        return found
    found += [f"this does not hold: {equation}" for equation in unbalanced(seen.status["requests"])]
    if not seen.status["protocol_errors"]:
        found.append("the gateway saw no broken message, so it was not attacked")
    return found


def _show(seen: Seen) -> None:
    rows = [(f"hostile: {name}", f"{count:,}") for name, count in seen.sent.items()]
    rows += [
        ("hostile messages", f"{seen.sent.total():,} in {seen.took_s:.1f} s"),
        ("attackers that spoke ZeroMQ", f"{seen.dialled:,}"),
        ("broken, as the gateway says", f"{seen.status.get('protocol_errors', 0):,}"),
        ("honest calls", f"{seen.calls:,}, {len(seen.failures)} failed, {seen.wrong} wrong"),
        ("longest silence", f"{seen.longest_silence_s:.2f} s"),
        ("gateway's memory", f"{seen.bytes_before / 2**20:.1f} MiB, then {seen.bytes_after / 2**20:.1f} MiB"),
        (
            "gateway's descriptors",
            f"{seen.descriptors_before}, then {seen.descriptors_after} after {seen.settled_s:.1f} s",
        ),
    ]
    for name, value in rows:
        print(f"{name:<34}{value}")


def main() -> int:
    """Attacks, prints what was seen, and returns 1 if something did not hold."""
    command = Command("python -m trials.fuzz_live", __doc__)
    command.add_argument("--messages", type=whole, default=100_000)
    command.add_argument("--seed", type=whole, default=1)
    given = command.parse_args()
    try:
        seen = trial(given.messages, given.seed)
    except (ZmqInferError, OSError) as error:
        print(f"the trial could not be made: {error}", file=sys.stderr)
        return 1
    _show(seen)
    mistakes = judged(seen)
    for sentence in mistakes:
        print(sentence, file=sys.stderr)
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
