"""Requests that two workers have at the same time, of which the first to answer is believed.

The second copy is a flight of its own that nobody waits for, so all that holds of a tombstone holds of it: its reply
gives its credit back, and its worker's loss loses nothing. What differs is that its reply may be taken for the
other's. Whoever loses is cancelled at once: without that a hedge costs a whole run, and at 40 % load the queues grow
without end.
"""

from __future__ import annotations

import heapq

from zmqinfer.machine.dispatches import Dispatches
from zmqinfer.machine.flight import Flight
from zmqinfer.machine.routes import Engine
from zmqinfer.policy.twice import may_run_twice
from zmqinfer.records import BATCH_ROWS, COMPUTE_US, HEDGE, IDEMPOTENT, STATUS, Kind, Record

__all__ = ["Hedges"]


class Hedges:
    """The requests that may be hedged, and those that are.

    Attributes:
        sent: calls for which a second worker was asked.
        won: calls that the second one answered first.
    """

    __slots__ = ("_dispatches", "_due", "_sequence", "sent", "won")

    def __init__(self, dispatches: Dispatches) -> None:
        self._dispatches = dispatches
        self._sequence = 0
        # When, and which dispatch: a request that was moved or answered since has another tag, or nobody who waits.
        self._due: list[tuple[float, int, int, Flight]] = []
        self.sent = self.won = 0

    @staticmethod
    def is_wanted(flight: Flight) -> bool:
        """Whether a request may be hedged: its caller or its model says so, and it may run twice."""
        record = flight.record
        wish = record[HEDGE] if len(record) > HEDGE else None
        if not (flight.route.hedge if wish is None else wish) or flight.is_suspect:
            return False
        return may_run_twice(record[IDEMPOTENT], flight.route.idempotent)

    def watch(self, flight: Flight, now: float) -> None:
        """Notes that a request that may be hedged was sent to a worker."""
        flight.sent_at = now
        delay_s = flight.route.hedging.delay_s()
        if delay_s is not None:
            self._sequence += 1
            heapq.heappush(self._due, (now + delay_s, self._sequence, flight.tag, flight))

    def on_timer(self, now: float) -> None:
        """Asks second workers for what has waited long enough."""
        due = self._due
        while due and due[0][0] <= now:
            _, _, tag, flight = heapq.heappop(due)
            if flight.client is None or flight.engine is None or flight.tag != tag or flight.rival is not None:
                continue
            second = _second(flight)
            if second is not None and flight.route.hedging.spend(flight.calls):
                self.sent += flight.calls
                flight.rival = rival = flight.copy()
                rival.client, rival.rival, rival.record = None, flight, flight.record.copy()
                self._dispatches.send(rival, second)

    @staticmethod
    def learn(flight: Flight, part: Record, now: float) -> None:
        """Notes that a request that may be hedged was answered."""
        batch_s = part[COMPUTE_US] * 1e-6
        flight.route.hedging.learn(now - flight.sent_at, flight.calls, part[BATCH_ROWS], batch_s)

    def ended_by(self, second: Flight, part: Record) -> Flight | None:
        """Returns the request that the reply to its second copy ends; None if it is no result, or comes too late."""
        flight = second.rival
        if flight is None:
            return None
        second.rival = flight.rival = None
        if part[STATUS]:
            return None
        self.won += flight.calls
        if flight.engine is not None:
            flight.engine.worker.outbox.put(Kind.CANCEL, [flight.tag, flight.calls])
        return flight

    @staticmethod
    def call_off(flight: Flight) -> None:
        """Parts two copies; the second is cancelled if the first has ended, or is not whole any more."""
        rival = flight.rival
        if rival is None:
            return
        flight.rival = rival.rival = None
        if flight.client is not None and rival.engine is not None:
            rival.engine.worker.outbox.put(Kind.CANCEL, [rival.tag, rival.calls])

    def wake_at(self) -> float | None:
        """Returns when `on_timer` is worth calling."""
        return self._due[0][0] if self._due else None


def _second(flight: Flight) -> Engine | None:
    """Returns the next worker on the ring that has room now, None if there is no other."""
    placement = flight.route.placement
    for engine in placement.ordered(flight.key_hash):
        if engine is not flight.engine and placement.room(engine, flight.rows) >= flight.rows:
            return engine
    return None
