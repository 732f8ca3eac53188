"""Which fault comes next, and the client that is killed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np

from bench.children import follow_the_parent, say
from trials.soak.processes import WORKERS
from zmqinfer import Client
from zmqinfer.tensor import Array

__all__ = ["CLIENTS", "FREEZE", "KILL", "KINDS", "RENEW", "VICTIM", "Plan", "hold_calls"]

KILL = "kill -9 of a worker"
FREEZE = "worker frozen for 1 s"
RENEW = "rolling restart"
CLIENTS = "20 short-lived clients"
VICTIM = "client killed with calls pending"
KINDS = (KILL, FREEZE, RENEW, CLIENTS, VICTIM)

# Five deaths of one process within a minute make `up` give up.
KILL_AGAIN_S = 30.0
RENEW_AGAIN_S = 180.0
# With so little time left for a first rolling restart its turn has come.
RENEW_URGENT_S = 30.0


class Plan:
    """Which fault comes next: each kind once in a random order, then all again, as far as they may happen now."""

    def __init__(self, seed: int, form_s: float) -> None:
        self.random = Random(f"{seed} faults")
        self._form_s = form_s
        self._bag: list[str] = []
        self._renewed_at_s = float("-inf")
        self._killed_at_s: dict[str, float] = {}

    @property
    def _last_renewal_s(self) -> float:
        return self._form_s / 3

    def killable(self, workers: list[str], at_s: float) -> list[str]:
        """Returns the workers that may be killed now; the last one is let live from the second third on."""
        spared = {f"worker_{WORKERS}"} if at_s > self._last_renewal_s else set()
        return [
            name
            for name in workers
            if name not in spared and at_s - self._killed_at_s.get(name, float("-inf")) >= KILL_AGAIN_S
        ]

    def note_kill(self, worker: str, at_s: float) -> None:
        """Remembers that this worker was killed."""
        self._killed_at_s[worker] = at_s

    def next(self, workers: list[str], at_s: float) -> str:
        """Returns a kind of fault that may happen now, while these workers run."""
        allowed = set(KINDS)
        if at_s > self._last_renewal_s or at_s - self._renewed_at_s < RENEW_AGAIN_S:
            allowed.discard(RENEW)
        if not self.killable(workers, at_s):
            allowed.discard(KILL)
        is_urgent = self._renewed_at_s < 0 and self._last_renewal_s - at_s < RENEW_URGENT_S
        if RENEW in allowed and is_urgent:
            kind = RENEW
        else:
            if not allowed.intersection(self._bag):
                self._bag = list(KINDS)
                self.random.shuffle(self._bag)
            kind = next(kind for kind in self._bag if kind in allowed)
        if kind in self._bag:
            self._bag.remove(kind)
        if kind == RENEW:
            self._renewed_at_s = at_s
        return kind


def hold_calls(addresses: list[str]) -> None:
    """Is a client with calls pending all the time, until its parent kills it."""
    follow_the_parent()
    x = np.ones(64, np.float32)
    with Client(addresses) as client:
        waiting = [client.submit("sleep", x) for _ in range(64)]

        def endless() -> Iterator[Array]:
            while True:
                yield x

        for number, _ in enumerate(client.infer_many("echo", endless())):
            if number == 100:
                say(pending=len(waiting))
