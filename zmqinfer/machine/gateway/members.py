"""A gateway's workers: their sessions, their models, and who of them takes requests."""

from __future__ import annotations

import enum
from typing import TypeAlias

from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.placement import Holder, Placement
from zmqinfer.policy.ring import version_of
from zmqinfer.policy.rotation import Work

__all__ = ["Peer", "Replica", "Roster", "WorkerSession", "WorkerState"]

# The ROUTER names each connection afresh, so a peer (its routing id) is a connection and no more; what lasts over a
# reconnect is the session, whose id the other side chose at random and says again.
Peer: TypeAlias = bytes

# A replica of short batches runs all rows that it may have under way in 5 ms (machine/worker/served.py), and this part
# of them in 0.16 ms; a block of fewer is not divided for it. With echo, 200 in flight and two workers, 0.02
# to 0.06 of the calls more a second.
_GRAINS_IN_CREDITS = 32


class WorkerState(enum.StrEnum):
    """What the gateway may do with a worker."""

    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


class WorkerSession:
    """One life of one worker on one connection; a reconnect begins another life.

    Attributes:
        name: what the ring knows it by.
        agent: program, version and process, in its own words.
        host: what it shares memory with; None: nobody.
        replicas: its models, by their numbers.
        strays: replies it sent to requests that it was not given.
    """

    __slots__ = ("agent", "host", "name", "outbox", "replicas", "session", "state", "strays", "weight")

    def __init__(
        self, name: str, session: bytes, weight: float, host: bytes | None, outbox: Outbox, agent: str = ""
    ) -> None:
        self.name = name
        self.agent = agent
        self.host = host
        self.session = session
        self.weight = weight
        self.outbox = outbox
        self.state = WorkerState.READY
        self.replicas: dict[int, Replica] = {}
        self.strays = 0


class Replica(Holder):
    """One model of one worker. As a holder it counts rows against its credits.

    Attributes:
        model: the name of its model; and
        version: its version.
        max_rows: the size of its largest batch.
        placement: where its held rows count. One that was dropped keeps the last, which then counts for nobody.
        answered: calls that came back, with whatever status.
        answered_rows: the rows of those that got a result.
        batches: batches that gave results, reckoned from the replies: each brings its part of one.
        failed: calls that came back with an error of the model.
        busy_us: how long those batches took, reckoned likewise.
        granted: rows that the worker says may be under way; none while it is stuck in a batch.
        limit: of those so many, as this gateway thinks of it; None: all.
        running: tags of which the worker said last that they run.
    """

    __slots__ = (
        "answered", "answered_rows", "batches", "busy_us", "failed", "granted", "limit", "max_rows", "model",
        "placement", "running", "version", "worker",
    )  # fmt: skip

    def __init__(self, worker: WorkerSession, model: str, version: int, max_rows: int, credits_rows: int) -> None:
        super().__init__(worker.name, worker.weight, credits_rows)
        self.worker = worker
        self.model = model
        self.version = version
        self.max_rows = max_rows
        self.granted = credits_rows
        self.limit: int | None = None
        self.allow()
        self.placement: Placement[Replica] = Placement([])
        self.answered = self.answered_rows = self.failed = 0
        self.batches = self.busy_us = 0.0
        self.running: list[int] = []

    def allow(self) -> None:
        """Reckons anew how many rows may be under way; a replica of short batches grants more than two of them."""
        rows = self.credits = self.granted if self.limit is None else min(self.granted, self.limit)
        self.grain = max(1, rows // _GRAINS_IN_CREDITS) if rows > 2 * self.max_rows else 1

    def work(self) -> Work:
        """Returns what it did so far."""
        return Work(self.answered, self.failed, self.batches, self.answered_rows, self.busy_us * 1e-6)


class Roster:
    """The workers that have a session, by name."""

    __slots__ = ("by_name",)

    def __init__(self) -> None:
        self.by_name: dict[str, WorkerSession] = {}

    def has_ready(self) -> bool:
        """Whether any worker takes requests for any model."""
        return any(worker.state is WorkerState.READY and worker.replicas for worker in self.by_name.values())

    def ready_names(self) -> list[str]:
        """Returns the names of those who take requests, sorted."""
        return sorted(name for name, worker in self.by_name.items() if worker.state is WorkerState.READY)

    def ring_version(self) -> str:
        """Returns what two gateways must agree on to send a key to the same worker."""
        return version_of({n: w.weight for n, w in self.by_name.items() if w.state is WorkerState.READY})
