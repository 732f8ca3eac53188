"""The gateway: REQUEST in from clients, out to workers; REPLY back the same way.

This file is the path of a request (placing, waiting, dispatching, answering, moving, expiring);
who the peers are is kept by `Clients` and `Workers`. Every request that was let in is in exactly
one client's `flights` until its one outcome: `accepted == answered + pending` at every instant.
"""

from __future__ import annotations

from zmqinfer.config import GatewaySettings
from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.machine.clients import Clients
from zmqinfer.machine.flight import OUT, Flight
from zmqinfer.machine.members import ClientSession, Peer, WorkerSession
from zmqinfer.machine.routes import Engine, Route, Routes
from zmqinfer.machine.workers import Workers
from zmqinfer.policy.admission import Admission
from zmqinfer.policy.ring import key_hash
from zmqinfer.policy.wheel import TimingWheel
from zmqinfer.records import (
    ATTEMPT,
    BATCH_ROWS,
    BUDGET_US,
    IDEMPOTENT,
    KEY,
    MAX_TEXT,
    MODEL,
    MODEL_VERSION,
    OUTPUT,
    PAYLOAD,
    RAN,
    REQUEST_ID,
    STATUS,
    TAG,
    Kind,
    Record,
)
from zmqinfer.tensor import payload_bytes

__all__ = ["GatewayMachine"]

# A request that was on this many workers when they were lost is not tried on another.
MAX_LOSSES = 3
# A gateway that has just started does not know its workers yet: it says NOT_FOUND only after this.
NOT_FOUND_AFTER_S = 3.0

_RAN_NO, _RAN_MAYBE = EXECUTED.index(Executed.NO), EXECUTED.index(Executed.MAYBE)


class GatewayMachine:
    """All that a gateway decides. Its shell owns two ROUTER sockets, a clock and nothing else.

    Attributes:
        outcomes: how many requests ended with each status, refusals included.
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
        self.admission = Admission(settings)
        agent = f"zmqinfer/{version} pid {pid}"
        self.clients = Clients(self, session=session, agent=agent)
        self.workers = Workers(self, session=session, agent=agent)
        self.received = self.refused = self.accepted = self.answered = 0
        self.duplicates = self.late_replies = self.stray_replies = self.moved = 0
        self.outcomes = [0] * len(Status)
        self.wheel: TimingWheel[Flight] = TimingWheel()
        self._tag = first_tag
        self._open: dict[int, Flight] = {}
        # Routes in which requests wait for their own worker; they have a time limit of their own.
        self._keyed: dict[Route, None] = {}

    # Requests ------------------------------------------------------------------------------------

    def on_requests(self, client: ClientSession, records: list[Record], now: float, gap: float) -> None:
        """Takes REQUEST records of a client.

        Args:
            gap: how long this node was not looking before it found them, in seconds; their budgets
                may have been running for that long, so it is charged to all of them.
        """
        flights = client.flights
        arrived = now - gap
        for record in records:
            tag: int = record[TAG]
            if tag in flights:
                # Resent behind a new greeting: the first is on its way and one answer is all there is.
                self.duplicates += 1
                continue
            self.received += 1
            payload = record[PAYLOAD]
            size = len(payload) if type(payload) is bytes else payload_bytes(payload)
            route = self.routes.find(record[MODEL], record[MODEL_VERSION])
            if not route.engines and self._is_unheard_of(route, now):
                self._refuse(client, record, Status.NOT_FOUND, self._not_found(route))
                self.routes.sweep(route)
                continue
            if route.waiting.count >= self.settings.max_queued:
                self._refuse(client, record, Status.OVERLOADED, _queue_full(route))
                continue
            if not self.admission.admit(client.usage, size):
                self._refuse(client, record, *self.admission.refusal(client.usage, size))
                self.routes.sweep(route)
                continue
            self.accepted += 1
            deadline = arrived + record[BUDGET_US] * 1e-6
            key = record[KEY]
            flight = Flight(
                record,
                client,
                tag,
                deadline,
                key_hash(record[REQUEST_ID] if key is None else key),
                size,
                route,
            )
            flights[tag] = flight
            flight.slot = self.wheel.add(flight, deadline)
            self._place(flight, now)

    def _place(self, flight: Flight, now: float) -> None:
        """Dispatches a request at once, or lets it wait behind those who wait already."""
        route = flight.route
        if flight.deadline <= now:
            self._end(flight, Status.DEADLINE_EXCEEDED, "the time was up on arrival", where="network")
            return
        if not route.waiting.count or route in self._keyed:
            engine = route.placement.place(flight.key_hash, flight.rows)
            # Those who wait may all wait for other workers: this one must not be idle meanwhile.
            if engine is not None and (not route.waiting or route.waiting.best(engine.name) is None):
                self._dispatch(flight, engine)
                return
        if not route.engines:
            self._set_patience(flight, now + self.settings.queue_wait_ms / 1000)
            route.waiting.put(flight, None, now)
        elif flight.record[KEY] is None:
            route.waiting.put(flight, None, now)
        else:
            home = route.placement.preferred(flight.key_hash).name
            route.waiting.put(flight, home, now + self.settings.affinity_wait_ms / 1000)
            self._keyed[route] = None

    def _dispatch(self, flight: Flight, engine: Engine) -> None:
        if flight.patience is not None:
            self._set_patience(flight, None)
        self._tag += 1
        flight.tag = tag = self._tag
        flight.engine = engine
        self._open[tag] = flight
        record = flight.record
        record[TAG] = tag
        record[MODEL_VERSION] = flight.route.version
        engine.placement.take(engine, flight.rows)
        engine.worker.outbox.put_request(record, flight.deadline, flight.size)

    def _set_patience(self, flight: Flight, until: float | None) -> None:
        """Makes the wheel wake at the end of patience instead of the deadline, or at the deadline again."""
        self.wheel.remove(flight, flight.slot)
        flight.patience = until
        flight.slot = self.wheel.add(flight, flight.deadline if until is None else min(until, flight.deadline))

    def serve(self, route: Route) -> None:
        """Gives the free credits of a route's engines to those who wait."""
        waiting = route.waiting
        for engine in route.engines.values():
            while waiting:
                flight = waiting.best(engine.name)
                if flight is None or not route.placement.admits(engine, flight.rows):
                    break
                waiting.take(flight)
                self._dispatch(flight, engine)

    def replace(self, flights: list[Flight], now: float) -> None:
        """Places again requests whose route became another one."""
        for flight in flights:
            flight.route = self.routes.find(flight.record[MODEL], flight.version)
            self._place(flight, now)

    # Replies -------------------------------------------------------------------------------------

    def on_replies(self, worker: WorkerSession, records: list[Record]) -> None:
        """Takes REPLY records of a worker; each gives its credit back."""
        flights = self._open
        freed: dict[Route, None] = {}
        for record in records:
            flight = flights.get(record[TAG])
            engine = flight.engine if flight is not None else None
            if flight is None or engine is None:
                self.late_replies += 1
                continue
            if engine.worker is not worker:
                self.stray_replies += 1
                worker.strays += 1
                continue
            del flights[flight.tag]
            rows = flight.rows
            engine.placement.give_back(engine, rows)
            engine.answered += 1
            if record[BATCH_ROWS]:
                engine.answered_rows += rows
                engine.batches += rows / record[BATCH_ROWS]
            route = flight.route
            if route.waiting.count:
                freed[route] = None
            client = flight.client
            if client is None:
                self.late_replies += 1
                continue
            if flight.losses and record[RAN] == _RAN_NO:
                # This worker speaks for itself alone: the one that was lost may have run it.
                record[RAN] = _RAN_MAYBE
            self.wheel.remove(flight, flight.slot)
            del client.flights[flight.client_tag]
            self.admission.release(client.usage, flight.size)
            self.answered += 1
            self.outcomes[record[STATUS]] += 1
            record[TAG] = flight.client_tag
            output = record[OUTPUT]
            client.outbox.put(Kind.REPLY, record, payload_bytes(output) if type(output) is list else len(output or b""))
        for route in freed:
            self.serve(route)

    def _end(
        self, flight: Flight, status: Status, detail: str, *, where: str | None = None, ran: int = _RAN_NO
    ) -> None:
        """Gives a request the outcome that the gateway decides; its tombstone, if any, stays open."""
        client = flight.client
        assert client is not None, flight.client_tag
        if flight.losses:
            ran = _RAN_MAYBE
        self.forget(flight)
        self.outcomes[status] += 1
        client.outbox.put(Kind.REPLY, _reply(flight.client_tag, status, detail, where, flight.record[ATTEMPT], ran))

    def forget(self, flight: Flight) -> None:
        """Takes a request out of all tables but that of dispatched tags, where it becomes a tombstone."""
        client = flight.client
        assert client is not None, flight.client_tag
        if flight.is_waiting:
            flight.route.waiting.remove(flight)
        self.routes.sweep(flight.route)
        if flight.slot != OUT:
            self.wheel.remove(flight, flight.slot)
        del client.flights[flight.client_tag]
        self.admission.release(client.usage, flight.size)
        self.answered += 1
        flight.client = None

    def _refuse(self, client: ClientSession, record: Record, status: Status, detail: str) -> None:
        self.refused += 1
        self.outcomes[status] += 1
        client.outbox.put(Kind.REPLY, _reply(record[TAG], status, detail, None, record[ATTEMPT], _RAN_NO))

    def cancel(self, flight: Flight) -> None:
        """Ends a request that its client no longer wants; a dispatched one is taken back from the worker."""
        self.outcomes[Status.CANCELLED] += 1
        if flight.engine is not None:
            flight.engine.worker.outbox.put(Kind.CANCEL, [flight.tag])
        self.forget(flight)

    # Failover and time ---------------------------------------------------------------------------

    def move_all_of(self, worker: WorkerSession, now: float) -> int:
        """Moves what a lost worker held to others; returns how many requests that were."""
        held = [flight for flight in self._open.values() if _holder(flight) is worker]
        for flight in held:
            del self._open[flight.tag]
            if flight.client is not None:
                self._move(flight, worker, now)
        return len(held)

    def _move(self, flight: Flight, lost: WorkerSession, now: float) -> None:
        flight.engine = None
        flight.losses += 1
        self.moved += 1
        declared = flight.record[IDEMPOTENT]
        if not (flight.route.idempotent if declared is None else declared):
            detail = f"worker {lost.name!r} was lost with the request, which may not be run twice"
            self._end(flight, Status.WORKER_LOST, detail, ran=_RAN_MAYBE)
        elif flight.losses >= MAX_LOSSES:
            detail = f"{flight.losses} workers were lost with the request, the last was {lost.name!r}"
            self._end(flight, Status.WORKER_LOST, detail, ran=_RAN_MAYBE)
        else:
            if not flight.route.engines:
                flight.route = self.routes.find(flight.record[MODEL], flight.version)
            self._place(flight, now)

    def on_timer(self, now: float) -> None:
        """Does what is due: expires requests, ends waits, beats, and gives up silent peers."""
        for flight in self.wheel.expire(now):
            flight.slot = OUT
            self._expire(flight, now)
        for route in list(self._keyed):
            if route.waiting.expire_homes(now):
                self.serve(route)
            if route.waiting.wake_at() is None:
                del self._keyed[route]
        self.workers.on_timer(now)
        self.clients.on_timer(now)

    def _expire(self, flight: Flight, now: float) -> None:
        if flight.engine is not None:
            detail = f"the time was up while worker {flight.engine.name!r} had the request"
            self._end(flight, Status.DEADLINE_EXCEEDED, detail, where="worker", ran=_RAN_MAYBE)
        elif flight.patience is not None and now < flight.deadline and flight.route.engines:
            # Its first worker came and is busy: from here on it waits for room, as everybody does.
            flight.patience = None
            flight.slot = self.wheel.add(flight, flight.deadline)
        elif flight.patience is not None and now < flight.deadline:
            self._end(flight, Status.UNAVAILABLE, self._unavailable(flight.route))
        else:
            waited_for = f"waited for a worker with room for model {flight.route.model!r}"
            self._end(flight, Status.DEADLINE_EXCEEDED, f"the time was up while it {waited_for}", where="queue")

    def wake_at(self) -> float | None:
        """Returns when `on_timer` is worth calling, or None when nothing waits for time to pass."""
        # Asked twice a turn, so without lists: 0.2 us, where a min over a list took 0.7.
        earliest = self.wheel.wake_at()
        due = self.workers.wake_at()
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

    def _is_unheard_of(self, route: Route, now: float) -> bool:
        """Whether it is safe to say that there is no such model, rather than to wait for its worker."""
        return (
            now - self.started_at > NOT_FOUND_AFTER_S
            and self.workers.has_ready()
            and not self.routes.is_known(route.model, route.version)
        )

    def _not_found(self, route: Route) -> str:
        served = ", ".join(sorted(f"{card[0]} (version {card[1]})" for card in self.routes.cards()))
        # With many models the list alone is more than a REPLY can carry.
        return f"no worker serves {_described(route)}; served now: {served or 'nothing'}"[:MAX_TEXT]

    def _unavailable(self, route: Route) -> str:
        ready = self.workers.ready_names()
        return (
            f"no live worker for {_described(route)} came within {self.settings.queue_wait_ms} ms"
            f" ({len(ready)} workers are ready for other models);"
            f" start one with: zmqinfer worker --gateway {self.addresses[1]}"
        )

    # Invariants ----------------------------------------------------------------------------------

    def check(self) -> None:
        """Asserts what must hold between any two calls."""
        pending = sum(len(client.flights) for client in self.clients.everyone())
        assert self.received == self.refused + self.accepted
        assert self.accepted == self.answered + pending, (self.accepted, self.answered, pending)
        assert self.answered + self.refused == sum(self.outcomes)
        assert self.admission.requests == pending
        assert len(self.wheel) == pending
        self.wheel.check()
        waiting = 0
        for route in self.routes:
            route.waiting.check()
            waiting += len(route.waiting)
        dispatched = [flight for flight in self._open.values() if flight.client is not None]
        assert waiting + len(dispatched) == pending, (waiting, len(dispatched), pending)
        held: dict[Engine, int] = {}
        for tag, flight in self._open.items():
            assert flight.tag == tag
            assert flight.engine is not None
            held[flight.engine] = held.get(flight.engine, 0) + flight.rows
        for worker in self.workers.everyone():
            for engine in worker.engines:
                assert engine.held == held.get(engine, 0), (engine.name, engine.held, held.get(engine, 0))

    def queued(self) -> int:
        """Returns how many requests wait for a worker."""
        return sum(len(route.waiting) for route in self.routes)

    def queued_bytes(self) -> int:
        """Returns the size of their bodies."""
        return sum(route.waiting.bytes for route in self.routes)

    def protocol_errors(self) -> int:
        """Returns how many broken messages came through both doors."""
        return self.clients.door.offences + self.workers.door.offences

    def forget_peer(self, peer: Peer) -> None:
        """Drops what is remembered of a connection that is over, at either door."""
        self.clients.door.forget(peer)
        self.workers.door.forget(peer)


def _holder(flight: Flight) -> WorkerSession | None:
    return flight.engine.worker if flight.engine is not None else None


def _described(route: Route) -> str:
    return f"model {route.model!r}" + (f" version {route.version}" if route.version else "")


def _queue_full(route: Route) -> str:
    return f"{len(route.waiting):,} requests wait for {_described(route)} already; send less, or add workers"


def _reply(tag: int, status: Status, detail: str, where: str | None, attempts: int, ran: int) -> Record:
    """A REPLY of the gateway's own: no worker, no batch, no times."""
    return [tag, status, detail, where, "", 0, attempts, ran, None, 0, 0, 0]
