"""Hostile messages for a live gateway, while an honest client asks it and checks every answer.

    .venv/bin/python -m trials.fuzz_live --messages 100000

Half of the attackers speak ZeroMQ: DEALERs at the clients' and at the workers' door, with or without a session,
that send changed messages and begin anew when they are cut off. The others speak to the bare port: random bytes,
broken greetings, HTTP, half messages. Afterwards the gateway must be the same process, its books must balance,
the honest client must have had every answer, and memory and descriptors must be what they were.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zmq

from bench.command import Command, whole
from trials.fuzz_wire import mutants
from zmqinfer import Client
from zmqinfer.errors import ZmqInferError
from zmqinfer.launch.processes import ProcessCluster
from zmqinfer.records import Kind
from zmqinfer.wire import VERSION

# A connection of an attacker does so much and is then another one.
_MESSAGES_EACH = 20
# What a warm-up of a tenth of the attack leaves the gateway with may grow by so much.
_MOST_GROWTH_BYTES = 64 * 2**20
_MOST_DESCRIPTORS = 20
_SETTLE_S = 10.0
# The honest client must get on in each of these.
_LOOK_S = 2.0
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)


def memory_of(pid: int) -> int:
    """Returns a process's resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def descriptors_of(pid: int) -> int:
    """Returns how many descriptors a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


class Honest(threading.Thread):
    """A client that goes on asking; `calls` were answered right."""

    def __init__(self, address: str) -> None:
        super().__init__(name="honest", daemon=True)
        self._address = address
        self.is_over = False
        self.calls = self.wrong = 0
        self.failures: list[str] = []

    def run(self) -> None:
        """Asks until it is told that all is over."""
        number = 0
        with Client(self._address) as client:
            while not self.is_over:
                asked = [np.full(4, number + n, np.float32) for n in range(50)]
                number += 50
                try:
                    answers = list(client.infer_many("echo", asked))
                except ZmqInferError as error:
                    self.failures.append(repr(error))
                    continue
                wrong = sum(not np.array_equal(y, x) for x, y in zip(asked, answers, strict=True))  # type: ignore[arg-type]
                self.wrong += wrong
                self.calls += len(asked) - wrong


def attack(addresses: tuple[str, str], messages: int, seed: int) -> Iterator[str]:
    """Sends so many hostile messages; yields which kind of attack each was of."""
    chance = random.Random(seed)
    source = mutants(seed)
    context = zmq.Context()
    try:
        sent = 0
        while sent < messages:
            door = chance.randrange(2)
            count = min(_MESSAGES_EACH, messages - sent)
            sent += count
            if chance.random() < 0.5:
                yield from _speak(context, addresses[door], door, count, chance, source)
            else:
                yield from _knock(addresses[door], count, chance, source)
    finally:
        context.destroy(linger=0)


def _speak(
    context: zmq.Context[Any], address: str, door: int, count: int, chance: random.Random, source: Iterator[bytes]
) -> Iterator[str]:
    """One connection that speaks ZeroMQ."""
    has_session = chance.random() < 0.5
    with context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 50)
        dealer.setsockopt(zmq.SNDTIMEO, 1_000)
        dealer.connect(address)
        if has_session:
            session = chance.randbytes(16)
            signature = [[["x", "FP32", [1]]], [["y", "FP32", [1]]]]
            ready = [session, f"mallory-{session.hex()[:6]}", "fuzz", 1_000, None, [["bad", 1, signature, 8, 16, True]]]
            greeting = [Kind.READY, ready] if door else [Kind.HELLO, [session, "fuzz", None, None]]
            dealer.send(msgpack.packb([VERSION, greeting[0], [greeting[1]]]))
        for _ in range(count):
            data = next(source)
            with contextlib.suppress(zmq.Again):
                dealer.send_multipart([data[1:], *([b"a part"] * (data[0] % 4))])
            yield f"{('clients', 'workers')[door]}, {'with' if has_session else 'without'} a session"


def _knock(address: str, count: int, chance: random.Random, source: Iterator[bytes]) -> Iterator[str]:
    """Connections to the bare port, one for each message."""
    host, port = address.removeprefix("tcp://").split(":")
    for _ in range(count):
        kind, data = chance.choice(
            (
                ("random bytes", chance.randbytes(chance.randrange(1, 300))),
                ("broken greeting", _GREETING[: chance.randrange(1, 65)] + chance.randbytes(chance.randrange(60))),
                ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
                ("half a message", _GREETING + b"\x02" + (2**40).to_bytes(8, "big") + next(source)),
            )
        )
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=2) as one:
            one.sendall(data)
        yield kind


def main() -> int:
    """Attacks, and prints a table; exit code 1 with a sentence for each thing that does not hold."""
    command = Command("python -m trials.fuzz_live", __doc__)
    command.add_argument("--messages", type=whole, default=100_000)
    command.add_argument("--seed", type=whole, default=1)
    given = command.parse_args()
    done: Counter[str] = Counter()
    with ProcessCluster(2) as cluster:
        pid, _ = cluster.pids
        honest = Honest(cluster.clients_address)
        honest.start()
        at_first = descriptors_of(pid)
        warm_at, before, answered = given.messages // 10, 0, 0
        stalls = 0
        began = time.perf_counter()
        look_at = began + _LOOK_S
        for number, kind in enumerate(
            attack((cluster.clients_address, cluster.workers_address), given.messages, given.seed)
        ):
            done[kind] += 1
            if number == warm_at:
                before = memory_of(pid)
            if time.perf_counter() >= look_at:
                look_at += _LOOK_S
                stalls += honest.calls == answered
                answered = honest.calls
        took_s = time.perf_counter() - began
        honest.is_over = True
        honest.join(30)
        give_up_at = time.perf_counter() + _SETTLE_S
        while descriptors_of(pid) > at_first + _MOST_DESCRIPTORS and time.perf_counter() < give_up_at:
            time.sleep(0.2)
        after, at_last, pid_now = memory_of(pid), descriptors_of(pid), cluster.pids[0]
        with Client(cluster.clients_address) as client:
            (one,) = client.status()
    for kind, count in sorted(done.items()):
        print(f"{kind:<32}{count:>9,}")
    print(f"{sum(done.values()):,} hostile messages in {took_s:.0f} s; {honest.calls:,} honest calls answered right")
    print(f"gateway: {before / 2**20:.0f} to {after / 2**20:.0f} MiB, {at_first} to {at_last} descriptors")
    requests = one["requests"]
    found = {
        "the gateway is another process": pid_now != pid,
        f"{len(honest.failures)} honest calls failed, {honest.failures[:1]}": bool(honest.failures),
        f"{honest.wrong} honest answers were wrong": honest.wrong > 0,
        f"the honest client stood still {stalls} times": stalls > 0,
        f"received is not refused + accepted: {requests}": requests["received"]
        != requests["refused"] + requests["accepted"],
        f"accepted is not answered + pending: {requests}": requests["accepted"]
        != requests["answered"] + requests["pending"],
        "the gateway's memory grew": after - before > _MOST_GROWTH_BYTES,
        "the gateway's descriptors stay": at_last > at_first + _MOST_DESCRIPTORS,
        "no message was called broken": one["protocol_errors"] == 0,
    }
    mistakes = [sentence for sentence, is_so in found.items() if is_so]
    for sentence in mistakes:
        print(f"not so: {sentence}", file=sys.stderr)
    return bool(mistakes)


if __name__ == "__main__":
    sys.exit(main())
