"""Who is let in: requests that are new, that a worker may be found for in time, and that end no worker's process."""

from __future__ import annotations

import difflib
import functools

from zmqinfer.errors import Status
from zmqinfer.machine.block import listed, part_of
from zmqinfer.machine.gateway.requests import ClientSession, Request
from zmqinfer.machine.gateway.routes import Route
from zmqinfer.machine.gateway.scheduler import Scheduler
from zmqinfer.machine.gateway.tables import Tables
from zmqinfer.records import BUDGET_US, MAX_MODELS, MAX_TEXT, MODEL, MODEL_VERSION, PAYLOAD, PLACES, TAG, Record
from zmqinfer.tensor import payload_bytes

__all__ = ["Intake"]

# A gateway that has just started does not know its workers yet: it says NOT_FOUND only after this.
NOT_FOUND_AFTER_S = 3.0
# Nobody is asked to stay away for longer.
_LONGEST_RETRY_MS = 5_000
# An answer may take so many times as long as the queue's rate says. A queue just as long as its calls have time
# answers all of them too late at the least mistake. With the loads of tests/sim/test_overload.py, batches of 40 ms, at
# 2, 5 and 10 times the capacity: with 1.0 the goodput was 0.92, 0.83 and 0.82 of the capacity, with 1.11, 1.25, 1.33
# and 1.5 never less than 0.98; with batches of 300 ms, 1.11 0.92 at 10 times, the others 0.96 and more.
_CAUTION = 1.25


class Intake:
    """Takes the requests of clients."""

    def __init__(self, tables: Tables, scheduler: Scheduler) -> None:
        self._settings = tables.settings
        self._ledger = tables.ledger
        self._routes = tables.routes
        self._suspects = tables.suspects
        self._roster = tables.roster
        self._started_at = tables.started_at
        self._scheduler = scheduler

    def take(self, client: ClientSession, records: list[Record], now: float, gap: float) -> None:
        """Takes a client's REQUESTs; their budgets may have run for `gap` seconds while this node was not looking."""
        requests = client.requests
        arrived = now - gap
        for record in records:
            known = 0
            for request in requests.about(record[TAG], record[PLACES]):
                known |= request.places & record[PLACES]
            if known:
                # Resent behind a new greeting: the first is on its way and one answer is all there is.
                self._ledger.duplicates += known.bit_count()
                if known == record[PLACES]:
                    continue
                record = part_of(record, record[PLACES] & ~known)  # noqa: PLW2901 - what is left of it
            if self._suspects.is_wary:
                self._sift(client, record, now, arrived)
            else:
                self._on_request(client, record, now, arrived)

    def _sift(self, client: ClientSession, record: Record, now: float, arrived: float) -> None:
        """Refuses the calls of a request that are in quarantine, and takes the others."""
        places = listed(record[PLACES])
        singles = [part_of(record, 1 << place) for place in places] if len(places) > 1 else [record]
        refused = [call for call in singles if self._suspects.refuses(call, now)]
        for call in refused:
            self._ledger.received += 1
            detail = "this input has ended a worker's process while it ran alone, and is not run again for ten minutes"
            self._ledger.refuse(client, call, Status.POISONED, detail)
        others = record[PLACES] & ~sum(call[PLACES] for call in refused)
        if others:
            self._on_request(client, part_of(record, others) if refused else record, now, arrived)

    def _on_request(self, client: ClientSession, record: Record, now: float, arrived: float) -> None:
        ledger, payload = self._ledger, record[PAYLOAD]
        ledger.received += record[PLACES].bit_count()
        route = self._routes.find(record[MODEL], record[MODEL_VERSION])
        if not route.is_known and self._knows_its_workers(now):
            ledger.refuse(client, record, Status.NOT_FOUND, self._not_found(route))
            self._routes.sweep(route)
            return
        deadline = arrived + record[BUDGET_US] * 1e-6
        # A block may exceed the limit by its own size: most of it may find a worker at once.
        if route.waiting.count and self._is_too_much(client, record, route, deadline, now):
            return
        size = len(payload) if type(payload) is bytes else payload_bytes(payload)
        if type(payload) is tuple and size <= self._settings.max_body_bytes:
            # It lies in the client's memory, which bounds itself; here it takes no place.
            size = 0
            # Whoever opens it finds the session in its name: a client can so name nothing but its own.
            record[PAYLOAD] = ([*payload[0][:2], client.session], *payload[1:])
        request = ledger.enter(client, record, size, deadline, route)
        if request is None:
            self._routes.sweep(route)
        else:
            self._scheduler.place(request, now)

    def _is_too_much(
        self, client: ClientSession, record: Record, route: Route[Request], deadline: float, now: float
    ) -> bool:
        """Whether a request is refused because the queue is full, or because it would wait there for nothing."""
        budget_s = deadline - now
        expected_s = route.answer_s(client.owner, record, deadline)
        excess_s = 0.0 if expected_s is None else _CAUTION * expected_s - budget_s
        if route.waiting.count >= self._settings.max_queued:
            detail = f"{route.waiting.count:,} requests wait for {route.words} already"
        elif excess_s > 0:
            answer_s = excess_s + budget_s
            detail = f"{route.words} may take {answer_s:.2f} s to answer it, and it has {budget_s:.2f} s"
        else:
            return False
        # When as much is ahead of a request as it has time for, if nothing else comes.
        retry_after_ms = min(int(excess_s * 1e3) + 1, _LONGEST_RETRY_MS) if excess_s > 0 else None
        detail = f"{detail}; send less, or add workers"
        self._ledger.refuse(client, record, Status.OVERLOADED, detail, retry_after_ms)
        return True

    def _knows_its_workers(self, now: float) -> bool:
        """Whether it is safe to say that there is no such model, rather than to wait for its worker."""
        return now - self._started_at > NOT_FOUND_AFTER_S and self._roster.has_ready()

    def _not_found(self, route: Route[Request]) -> str:
        cards = self._routes.cards()
        served = ", ".join(sorted(f"{card[0]} (version {card[1]})" for card in cards))
        advice = _advice(route.model, tuple(sorted({card[0] for card in cards})[:MAX_MODELS]))
        # With many models the list alone is more than a REPLY can carry.
        return f"no worker serves {route.words}{advice}; served now: {served or 'nothing'}"[:MAX_TEXT]


# Longer names are not compared: the time goes with the square, and 64 of these may take 1.5 ms.
_SHORT = 32


# Remembered, for who has a name wrong asks again and again.
@functools.lru_cache(maxsize=256)
def _advice(model: str, names: tuple[str, ...]) -> str:
    """Says which model may have been meant, if one has nearly that name."""
    if len(model) > _SHORT:
        return ""
    close = difflib.get_close_matches(model, [name for name in names if name != model and len(name) <= _SHORT], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
