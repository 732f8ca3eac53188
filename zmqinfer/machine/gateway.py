"""The gateway: REQUEST in from clients, out to workers; REPLY back the same way.

This file is the path of a request (placing, waiting, dispatching, answering, moving, expiring);
who the peers are is kept by `Clients` and `Workers`. Every request that was let in is in exactly
one client's `flights` until its one outcome: `accepted == answered + pending` at every instant.
"""

from __future__ import annotations

from collections.abc import Set

from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status
from zmqinfer.machine.block import covering
from zmqinfer.machine.clients import Clients
from zmqinfer.machine.dispatches import Dispatches
from zmqinfer.machine.flight import Flight
from zmqinfer.machine.hedges import Hedges
from zmqinfer.machine.intake import Intake
from zmqinfer.machine.ledger import INLINE, RAN_MAYBE, RAN_NO, RAN_YES, Ledger
from zmqinfer.machine.members import ClientSession, Peer, WorkerSession
from zmqinfer.machine.routes import Engine, Route, Routes
from zmqinfer.machine.suspects import Suspects, oldest
from zmqinfer.machine.workers import Workers
from zmqinfer.policy.twice import may_run_twice
from zmqinfer.records import (
    AGAIN,
    HEDGE,
    IDEMPOTENT,
    KEY,
    MODEL,
    PAYLOAD,
    STATUS,
    Kind,
    Record,
)

__all__ = ["GatewayMachine"]

# A request that was on this many workers when they were lost is not tried on another.
MAX_LOSSES = 3
# So long its workers may take to find a gateway that has just started: they dial at most a second apart, and greet.
REJOIN_S = 1.5
# Clients that are owed nothing and do not hear that this gateway drains are left after so long.
_GOODBYE_S = 1.0


class GatewayMachine:
    """All that a gateway decides. Its shell owns two ROUTER sockets, a clock and nothing else.

    Attributes:
        is_draining: whether this gateway finishes what it has, and ends.
        moved: calls that were given to another worker because theirs was lost, or gave them back.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        session: bytes,
        version: str,
        pid: int,
        addresses: tuple[str, str],
        first_tag: int,
        now: float,
    ) -> None:
        """Makes a gateway without peers.

        Args:
            session: 16 random bytes that name this life of the gateway.
            version: of the release, and
            pid: of the process: for `status` and the peers' logs.
            addresses: where clients and where workers dial, for error texts.
            first_tag: where the tags begin; random, so that two lives of a gateway share none.
        """
        self.settings = settings
        self.version = version
        self.pid = pid
        self.addresses = addresses
        self.started_at = now
        self.routes = Routes()
        self.ledger = Ledger(settings)
        agent = f"zmqinfer/{version} pid {pid}"
        self.clients = Clients(self, session=session, agent=agent)
        self.workers = Workers(self, session=session, agent=agent)
        self.moved = 0
        self.suspects = Suspects()
        self.is_draining = False
        # Until when, if draining: for all that is pending, and for the goodbyes of those who are owed nothing.
        self._drain_by = self._goodbye_by = float("inf")
        self.dispatches = Dispatches(first_tag, self._divide)
        self.hedges = Hedges(self.dispatches)
        self.intake = Intake(self)
        # Routes in which requests wait for their own worker; they have a time limit of their own.
        self._keyed: dict[Route, None] = {}

    # Requests ------------------------------------------------------------------------------------

    def place(self, flight: Flight, now: float) -> None:
        """Dispatches a request at once, or lets it, or what is left of it, wait behind those who wait already."""
        while flight.is_suspect and flight.calls > 1:
            self.place(self._divide(flight, 1), now)
        route = flight.route
        if flight.deadline <= now:
            self._end(flight, Status.DEADLINE_EXCEEDED, "the time was up before it reached a worker", where="network")
            return
        if not route.waiting.count or route in self._keyed:
            for engine, rows in route.placement.spread(flight.key_hash, flight.rows, flight.calls):
                # Those who wait may all wait for other workers: this one must not be idle meanwhile.
                if route.waiting.count and route.waiting.best(engine.name) is not None:
                    continue
                if rows == flight.rows:
                    self._dispatch(flight, engine, now)
                    return
                self._dispatch(self._divide(flight, rows), engine, now)
        if not route.engines:
            since = max(now, self.started_at + REJOIN_S)
            self.ledger.set_patience(flight, since + self.settings.queue_wait_ms / 1000)
            route.queue(flight, now)
        elif flight.record[KEY] is None or not route.placement.holders:
            route.queue(flight, now)
        else:
            home = route.placement.preferred(flight.key_hash).name
            route.queue(flight, now, home, now + self.settings.affinity_wait_ms / 1000)
            self._keyed[route] = None

    def _dispatch(self, flight: Flight, engine: Engine, now: float) -> None:
        if type(flight.record[PAYLOAD]) is tuple and flight.client and flight.client.host != engine.worker.host:
            detail = f"worker {engine.name!r} is on another host and cannot read the client's memory"
            self._end(flight, Status.UNAVAILABLE, detail, where=INLINE)
            return
        if len(flight.record) > AGAIN and flight.record[AGAIN] is True and not self._may_run_twice(flight):
            # Its client did not know that when it sent it again: it had heard of no worker of this model yet.
            detail = "the request may have reached a gateway before, and may not be run twice"
            self._end(flight, Status.WORKER_LOST, detail, ran=RAN_MAYBE)
            return
        if flight.patience is not None:
            self.ledger.set_patience(flight, None)
        self.dispatches.send(flight, engine)
        if (flight.route.hedge or len(flight.record) > HEDGE) and self.hedges.is_wanted(flight):
            self.hedges.watch(flight, now)

    def _divide(self, flight: Flight, calls: int) -> Flight:
        """Takes the first calls off a flight into one of their own; both are wherever the whole was."""
        self.hedges.call_off(flight)
        head = flight.cut(calls)
        self.ledger.divide(flight, head)
        if flight.engine is not None:
            self.dispatches.enter(head)
            self.dispatches.enter(flight)
        elif flight.is_waiting:
            flight.route.waiting.divide(flight, head)
        return head

    def serve(self, route: Route, now: float) -> None:
        """Gives the free credits of a route's engines to those who wait."""
        waiting, placement = route.waiting, route.placement
        for engine in placement.holders:
            while waiting.count:
                flight = waiting.best(engine.name)
                if flight is None:
                    break
                if flight.calls > 1:
                    rows = placement.room(engine, flight.rows)
                else:
                    rows = flight.rows if placement.admits(engine, flight.rows) else 0
                if not rows:
                    break
                if rows < flight.rows:
                    head = flight.cut(rows)
                    self.ledger.divide(flight, head)
                    waiting.take_part(flight, head)
                    flight = head
                else:
                    waiting.take(flight)
                self._dispatch(flight, engine, now)

    def replace(self, flights: list[Flight], now: float) -> None:
        """Places again requests whose route became another one."""
        for flight in flights:
            flight.route = self.routes.find(flight.record[MODEL], flight.version)
            self.place(flight, now)

    # Replies -------------------------------------------------------------------------------------

    def on_replies(self, worker: WorkerSession, records: list[Record], now: float) -> None:
        """Takes REPLY records of a worker; each gives its credit back."""
        freed: dict[Route, None] = {}
        for record in records:
            for flight, part in self.dispatches.take(worker, record):
                if flight.route.waiting.count:
                    freed[flight.route] = None
                if flight.client is not None:
                    self._end_with(flight, part, now)
                elif flight.rival is not None and (first := self.hedges.ended_by(flight, part)) is not None:
                    self._leave(first)
                    self._end_with(first, part, now)
        for route in freed:
            route.on_return(now)
            self.serve(route, now)

    def _end_with(self, flight: Flight, part: Record, now: float) -> None:
        """Ends a request with its worker's reply, unless it was given back."""
        if flight.rival is not None:
            self.hedges.call_off(flight)
        if part[STATUS]:
            if part[STATUS] == Status.CANCELLED:
                # Its caller still wants it: the worker gave it back, unrun, because we asked.
                self._place_again(flight, now)
                return
            if part[STATUS] == Status.POISONED:
                self.suspects.convict(flight, now)
        if flight.sent_at:
            self.hedges.learn(flight, part, now)
        self.ledger.answer(flight, part)

    def recall(self, engine: Engine) -> None:
        """Asks an engine that should get no work to give back what it has not begun."""
        for flight in self.dispatches.awaited_from(engine):
            engine.worker.outbox.put(Kind.CANCEL, [flight.tag, flight.calls])

    def _place_again(self, flight: Flight, now: float) -> None:
        flight.engine = None
        self.moved += flight.calls
        if not flight.route.engines:
            flight.route = self.routes.find(flight.record[MODEL], flight.version)
        self.place(flight, now)

    def _end(self, flight: Flight, status: Status, detail: str, *, where: str | None = None, ran: int = RAN_NO) -> None:
        """Gives a request an outcome of the gateway's own; if a worker has it, its tombstone stays open."""
        self.hedges.call_off(flight)
        self._leave(flight)
        self.ledger.end(flight, status, detail, where, ran)

    def _leave(self, flight: Flight) -> None:
        if flight.is_waiting:
            flight.route.waiting.remove(flight)
        self.routes.sweep(flight.route)

    def cancel(self, client: ClientSession, tag: int, calls: int) -> None:
        """Ends calls that their client no longer wants."""
        for wanted in range(tag, tag + calls):
            flight = covering(client.flights, wanted)
            if flight is None:
                continue
            if flight.client_tag < tag:
                self._divide(flight, tag - flight.client_tag)
            if flight.client_tag + flight.calls > tag + calls:
                flight = self._divide(flight, tag + calls - flight.client_tag)
            self.withdraw(flight)

    def withdraw(self, flight: Flight) -> None:
        """Ends a request as cancelled; a dispatched one is taken back from the worker."""
        if flight.engine is not None:
            flight.engine.worker.outbox.put(Kind.CANCEL, [flight.tag, flight.calls])
        self.hedges.call_off(flight)
        self._leave(flight)
        self.ledger.cancel(flight)

    # Draining ------------------------------------------------------------------------------------

    def drain(self, now: float) -> None:
        """Begins to leave: clients are told to go elsewhere, and everything that is or comes in is answered."""
        if not self.is_draining:
            self.is_draining = True
            self._drain_by = now + self.settings.drain_grace_s
            self._goodbye_by = min(now + _GOODBYE_S, self._drain_by)
            self.clients.drain()

    def is_drained(self, now: float) -> bool:
        """Whether all clients have gone, or the time of grace is over."""
        if not self.is_draining:
            return False
        return not len(self.clients) or now >= (self._drain_by if self.ledger.pending else self._goodbye_by)

    # Failover and time ---------------------------------------------------------------------------

    def move_all_of(self, worker: WorkerSession, unsent: Set[int], now: float, *, is_abrupt: bool) -> int:
        """Moves what a lost worker held to others; returns how many requests that were.

        Args:
            is_abrupt: whether it may be that one of them has ended its process.
            unsent: tags of calls that never left for it. It was not lost with those: they may run elsewhere whatever
                they are, and a gateway that finds all its connections gone shall not count each as a loss.
        """
        held = self.dispatches.withdraw(worker)
        suspects = oldest(held) if is_abrupt else set()
        running = {tag for engine in worker.engines for tag in engine.told} if is_abrupt else set()
        for flight in held:
            if flight.client is None:
                self.hedges.call_off(flight)
                continue
            if flight.is_suspect and flight.tag in running:
                flight.losses += 1
                flight.engine = None
                self.suspects.accuse(flight, worker.session, now)
            else:
                has_left = flight.tag not in unsent
                flight.is_suspect |= has_left and flight in suspects
                self._move(flight, worker, now, has_left=has_left)
        return sum(flight.calls for flight in held)

    def acquit(self, session: bytes, now: float) -> None:
        """Places again what was thought to have ended a worker that is there."""
        for flight in self.suspects.acquit(session):
            flight.is_suspect = False
            self._place_again(flight, now)

    def _move(self, flight: Flight, lost: WorkerSession, now: float, *, has_left: bool) -> None:
        flight.losses += has_left
        if has_left and not self._may_run_twice(flight):
            detail = f"worker {lost.name!r} was lost with the request, which may not be run twice"
            self._end(flight, Status.WORKER_LOST, detail, ran=RAN_MAYBE)
        elif has_left and flight.losses >= MAX_LOSSES:
            detail = f"{flight.losses} workers were lost with the request, the last was {lost.name!r}"
            self._end(flight, Status.WORKER_LOST, detail, ran=RAN_MAYBE)
        else:
            self._place_again(flight, now)

    @staticmethod
    def _may_run_twice(flight: Flight) -> bool:
        return may_run_twice(flight.record[IDEMPOTENT], flight.route.idempotent)

    def on_timer(self, now: float) -> None:
        """Does what is due: expires requests, ends waits, beats, and gives up silent peers."""
        for flight in self.ledger.expire(now):
            self._expire(flight, now)
        for route in list(self._keyed):
            if route.waiting.expire_homes(now):
                self.serve(route, now)
            if route.waiting.wake_at() is None:
                del self._keyed[route]
        self.hedges.on_timer(now)
        for flight in self.suspects.condemn(now):
            detail = "the process of its worker ended while it ran alone"
            self._end(flight, Status.POISONED, detail, where="model", ran=RAN_YES)
        self.workers.on_timer(now)
        self.clients.on_timer(now)

    def _expire(self, flight: Flight, now: float) -> None:
        if flight.engine is not None:
            detail = f"the time was up while worker {flight.engine.name!r} had the request"
            self._end(flight, Status.DEADLINE_EXCEEDED, detail, where="worker", ran=RAN_MAYBE)
        elif not flight.is_waiting:
            detail = "the time was up while it was waited whether its worker comes back"
            self._end(flight, Status.DEADLINE_EXCEEDED, detail, where="worker")
        elif not flight.route.engines:
            self._end(flight, Status.UNAVAILABLE, self._unavailable(flight.route))
        elif now < flight.deadline:
            # Its first worker came and is busy: from here on it waits for room, as everybody does.
            self.ledger.set_patience(flight, None)
        else:
            detail = f"the time was up while it waited for a worker with room for model {flight.route.model!r}"
            engines = flight.route.engines.values()
            if stuck := sum(not engine.granted for engine in engines):
                detail += f"; {stuck} of {len(engines)} are stuck in a batch"
            self._end(flight, Status.DEADLINE_EXCEEDED, detail, where="queue")

    def wake_at(self) -> float | None:
        """Returns when `on_timer` is worth calling, or None when nothing waits for time to pass."""
        # Asked twice a turn, so without lists: 0.2 us, where a min over a list took 0.7.
        earliest = self.ledger.wake_at()
        if self.is_draining:
            limit = self._drain_by if self.ledger.pending else self._goodbye_by
            earliest = limit if earliest is None else min(earliest, limit)
        due = self.workers.wake_at()
        if due is not None and (earliest is None or due < earliest):
            earliest = due
        due = self.hedges.wake_at()
        if due is not None and (earliest is None or due < earliest):
            earliest = due
        due = self.suspects.wake_at()
        if due is not None and (earliest is None or due < earliest):
            earliest = due
        due = self.clients.wake_at()
        if due is not None and (earliest is None or due < earliest):
            earliest = due
        for route in self._keyed:
            due = route.waiting.wake_at()
            if due is not None and (earliest is None or due < earliest):
                earliest = due
        return earliest

    # Texts ---------------------------------------------------------------------------------------

    def _unavailable(self, route: Route) -> str:
        ready = self.workers.ready_names()
        return (
            f"no live worker for {route.words} came within the deadline, or within {self.settings.queue_wait_ms} ms,"
            f" not counting this gateway's first {REJOIN_S:g} s ({len(ready)} workers are ready for other models);"
            f" start one with: zmqinfer worker --models DIR --gateway {self.addresses[1]}"
        )

    # Invariants ----------------------------------------------------------------------------------

    def check(self) -> None:
        """Asserts what must hold between any two calls."""
        self.ledger.check(self.clients.everyone())
        queued = 0
        for route in self.routes:
            route.waiting.check()
            queued += route.waiting.count
        awaited, held = self.dispatches.check()
        accused = self.suspects.awaited()
        assert queued + awaited + accused == self.ledger.pending, (queued, awaited, accused, self.ledger.pending)
        for worker in self.workers.everyone():
            for engine in worker.engines:
                assert engine.held == held.get(engine, 0), (engine.name, engine.held, held.get(engine, 0))

    def forget_peer(self, peer: Peer) -> None:
        """Drops what is remembered of a connection that is over, at either door."""
        self.clients.door.forget(peer)
        self.workers.door.forget(peer)
