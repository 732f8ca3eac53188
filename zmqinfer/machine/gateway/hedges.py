"""When a second worker is asked for what the first is slow to answer.

Both have a dispatch of the same request, and the first result ends it; who is late then hears so at once: without
that a hedge costs a whole run, and at 40 % load the queues grow without end.
"""

from __future__ import annotations

from zmqinfer.machine.gateway.dispatches import Dispatches
from zmqinfer.machine.gateway.requests import Dispatch, Request
from zmqinfer.policy.timers import Timers
from zmqinfer.records import BATCH_ROWS, COMPUTE_US, HEDGE, Record

__all__ = ["Hedges"]


class Hedges:
    """Who asks second workers.

    Attributes:
        sent: calls for which a second worker was asked.
        won: calls that the second one answered first.
    """

    __slots__ = ("_dispatches", "_timers", "sent", "won")

    def __init__(self, dispatches: Dispatches, timers: Timers) -> None:
        self._dispatches = dispatches
        self._timers = timers
        self.sent = self.won = 0

    @staticmethod
    def is_wanted(request: Request) -> bool:
        """Whether a request may be hedged: its caller or its model says so, and it may run twice."""
        record = request.record
        wish = record[HEDGE] if len(record) > HEDGE else None
        if not (request.route.hedge if wish is None else wish) or request.is_suspect:
            return False
        return request.may_run_twice

    def watch(self, dispatch: Dispatch, now: float) -> None:
        """Notes that a request that may be hedged was sent to a worker."""
        dispatch.sent_at = now
        delay_s = dispatch.request.route.hedging.delay_s()
        if delay_s is not None:
            self._timers.at(now + delay_s, self._ask_second, dispatch)

    def _ask_second(self, first: Dispatch, _now: float) -> None:
        """Asks the next worker on the ring that has room now."""
        request = first.request
        if not request.is_open or request.dispatches != (first,):
            return
        route, rows = request.route, request.rows
        for second in route.placement.ordered(request.key_hashes()[0]):
            if second is not first.replica and route.placement.room(second, rows) >= rows:
                if route.hedging.spend(request.calls):
                    self.sent += request.calls
                    self._dispatches.send(request, second).sent_at = first.sent_at
                return

    def learn(self, dispatch: Dispatch, part: Record, now: float) -> None:
        """Notes that a request that may be hedged gets this dispatch's reply."""
        request = dispatch.request
        batch_s = part[COMPUTE_US] * 1e-6
        request.route.hedging.learn(now - dispatch.sent_at, dispatch.request.calls, part[BATCH_ROWS], batch_s)
        if request.dispatches and request.dispatches[0].tag < dispatch.tag:
            self.won += dispatch.request.calls
