"""Where requests are run: placed, served from the queue, answered, moved, recalled, divided, ended.

REQUEST comes in through `Intake` and REPLY through `on_replies`; between them a request waits in its route, or
replicas have it. Every request that was let in has exactly one outcome: `accepted == answered + pending` at every
instant.
"""

from __future__ import annotations

from collections.abc import Container

from zmqinfer.errors import Status
from zmqinfer.machine.block import first_of, listed
from zmqinfer.machine.gateway.dispatches import Dispatches
from zmqinfer.machine.gateway.hedges import Hedges
from zmqinfer.machine.gateway.members import Replica, WorkerSession
from zmqinfer.machine.gateway.requests import ClientSession, Dispatch, Request
from zmqinfer.machine.gateway.routes import Route
from zmqinfer.machine.gateway.suspects import ACQUITTED_BY_S, oldest
from zmqinfer.machine.gateway.tables import Tables
from zmqinfer.records import AGAIN, HEDGE, INLINE, KEY, PAYLOAD, RAN, RAN_MAYBE, RAN_NO, RAN_YES, STATUS, Record

__all__ = ["REJOIN_S", "Scheduler"]

# A request that was on this many workers when they were lost is not tried on another.
MAX_LOSSES = 3
# So long its workers may take to find a gateway that has just started: they dial at most a second apart, and greet.
REJOIN_S = 1.5


class Scheduler:
    """Decides for each request that was let in who runs it, and how it ends.

    Attributes:
        moved: calls that were given to another worker because theirs was lost, or gave them back.
        dispatches: what workers have in hand.
        hedges: when a second worker is asked.
    """

    def __init__(self, tables: Tables, first_tag: int) -> None:
        """Makes a scheduler without requests; the tags of its dispatches begin at `first_tag`."""
        self.moved = 0
        self.dispatches = Dispatches(first_tag, self._divide)
        self.hedges = Hedges(self.dispatches, tables.timers)
        self._settings = tables.settings
        self._ledger = tables.ledger
        self._routes = tables.routes
        self._suspects = tables.suspects
        self._roster = tables.roster
        self._timers = tables.timers
        self._workers_address = tables.workers_address
        self._rejoined_at = tables.started_at + REJOIN_S
        # Routes in which requests wait for their own worker; they have a time limit of their own.
        self._keyed: dict[Route[Request], None] = {}

    # Placing -------------------------------------------------------------------------------------

    def place(self, request: Request, now: float) -> None:
        """Dispatches a request at once, or lets it, or what is left of it, wait behind those who wait already."""
        while request.is_suspect and request.calls > 1:
            self.place(self._divide(request, first_of(request.places, 1)), now)
        route = request.route
        if request.deadline <= now:
            self._end(request, Status.DEADLINE_EXCEEDED, "the time was up before it reached a worker", where="network")
            return
        hashes = request.key_hashes()
        if len(hashes) > 1:
            self._place_each(request, hashes, now)
            return
        if not route.waiting.count or route in self._keyed:
            for replica, rows in route.placement.spread(hashes[0], request.rows, request.calls):
                # Those who wait may all wait for other workers: this one must not be idle meanwhile.
                if route.waiting.count and route.waiting.best(replica.name) is not None:
                    continue
                if rows == request.rows:
                    self._dispatch(request, replica, now)
                    return
                self._dispatch(self._divide(request, first_of(request.places, rows)), replica, now)
        self._queue(request, hashes[0], now)

    def _place_each(self, request: Request, hashes: list[int], now: float) -> None:
        """Places calls with keys of their own, each as if it had come alone, and sends on together what it can."""
        route = request.route
        placement, waiting = route.placement, route.waiting
        may_pass = not waiting.count or route in self._keyed
        # The calls by their worker, and by the home that they wait for with a key hash that is at home there.
        sent: dict[Replica, int] = {}
        kept: dict[str | None, tuple[int, int]] = {}
        for place, hashed in zip(listed(request.places), hashes, strict=True):
            replica = placement.place(hashed, 1) if may_pass else None
            if replica is not None and replica.name not in kept and not (waiting.count and waiting.best(replica.name)):
                # The next one is placed beside it.
                placement.take(replica, 1)
                sent[replica] = sent.get(replica, 0) | 1 << place
            else:
                home = placement.preferred(hashed).name if placement.holders else None
                kept[home] = kept.get(home, (0, hashed))[0] | 1 << place, hashed
        for replica, places in sent.items():
            placement.give_back(replica, places.bit_count())
        for replica, places in sent.items():
            part = request if places == request.places else self._divide(request, places)
            self._dispatch(part, replica, now)
        for places, hashed in kept.values():
            part = request if places == request.places else self._divide(request, places)
            self._queue(part, hashed, now)

    def _queue(self, request: Request, key_hash: int, now: float) -> None:
        route = request.route
        if not route.replicas:
            since = max(now, self._rejoined_at)
            self._ledger.look_at(request, since + self._settings.queue_wait_ms / 1000)
            route.queue(request, now)
        elif request.record[KEY] is None or not route.placement.holders:
            route.queue(request, now)
        else:
            home = route.placement.preferred(key_hash).name
            route.queue(request, now, home, now + self._settings.affinity_wait_ms / 1000)
            self._keyed[route] = None

    def _dispatch(self, request: Request, replica: Replica, now: float) -> None:
        record = request.record
        if type(record[PAYLOAD]) is tuple and request.client.host != replica.worker.host:
            detail = f"worker {replica.name!r} is on another host and cannot read the client's memory"
            self._end(request, Status.UNAVAILABLE, detail, where=INLINE)
            return
        if len(record) > AGAIN and record[AGAIN] is True and not request.may_run_twice:
            # Its client did not know that when it sent it again: it had heard of no worker of this model yet.
            detail = "the request may have reached a gateway before, and may not be run twice"
            self._end(request, Status.WORKER_LOST, detail, ran=RAN_MAYBE)
            return
        if request.due_at < request.deadline:
            self._ledger.look_at(request, request.deadline)
        dispatch = self.dispatches.send(request, replica)
        if (request.route.hedge or len(record) > HEDGE) and self.hedges.is_wanted(request):
            self.hedges.watch(dispatch, now)

    def serve(self, route: Route[Request], now: float) -> None:
        """Gives the free credits of a route's replicas to those who wait."""
        waiting, placement = route.waiting, route.placement
        for replica in placement.holders:
            while waiting.count:
                request = waiting.best(replica.name)
                if request is None:
                    break
                rows = self._room(replica, request)
                if not rows:
                    break
                if rows < request.rows:
                    head = self._cut(request, first_of(request.places, rows))
                    waiting.take_part(request, head)
                    request = head
                else:
                    waiting.take(request)
                self._dispatch(request, replica, now)

    @staticmethod
    def _room(replica: Replica, request: Request) -> int:
        """Returns how many rows of a request that waited a replica may take now."""
        placement = replica.placement
        if request.calls == 1:
            return request.rows if placement.admits(replica, request.rows) else 0
        if request.record[KEY] is None:
            return placement.room(replica, request.rows)
        return placement.room_for_each(replica, request.rows)

    def replace(self, requests: list[Request], now: float) -> None:
        """Places again requests whose route may be another one now."""
        for request in requests:
            request.route = self._routes.find(request.route.model, request.version)
            self.place(request, now)

    def _divide(self, request: Request, places: int) -> Request:
        """Takes some of the calls off a request into one of their own, which is wherever the whole was."""
        head = self._cut(request, places)
        if request.is_waiting:
            request.route.waiting.divide(request, head)
        return head

    def _cut(self, request: Request, places: int) -> Request:
        """Does the same, but for a place in the queue, which these calls then do not have."""
        head = request.cut(places)
        if request.is_open:
            self._ledger.divide(head)
        self.dispatches.enter(head)
        return head

    # Replies -------------------------------------------------------------------------------------

    def on_replies(self, worker: WorkerSession, records: list[Record], now: float) -> None:
        """Takes REPLY records of a worker; each gives its credit back."""
        freed: dict[Route[Request], None] = {}
        for record in records:
            for dispatch, part in self.dispatches.take(worker, record):
                route = dispatch.request.route
                if route.waiting.count:
                    freed[route] = None
                if dispatch.request.is_open:
                    self._on_reply(dispatch, part, now)
        for route in freed:
            route.on_return(now)
            self.serve(route, now)

    def _on_reply(self, dispatch: Dispatch, part: Record, now: float) -> None:
        """Ends a request with a worker's reply, unless it was given back, or failed while another worker has it too."""
        request = dispatch.request
        status = part[STATUS]
        if status:
            if status == Status.POISONED:
                self._suspects.convict(request, now)
            if request.dispatches:
                request.may_have_run |= part[RAN] != RAN_NO
                return
            if status == Status.CANCELLED and (part[RAN] == RAN_NO or request.may_run_twice):
                # Its caller still wants it: the worker gave it back because we asked.
                self._place_again(request, now)
                return
        if dispatch.sent_at:
            self.hedges.learn(dispatch, part, now)
        if request.dispatches:
            self.dispatches.recall(request.dispatches)
        self._ledger.answer(request, part)

    def _place_again(self, request: Request, now: float) -> None:
        self.moved += request.calls
        self.replace([request], now)

    # Ends ----------------------------------------------------------------------------------------

    def _end(
        self, request: Request, status: Status, detail: str, *, where: str | None = None, ran: int = RAN_NO
    ) -> None:
        """Gives a request an outcome of the gateway's own."""
        self._leave(request)
        self._ledger.end(request, status, detail, where, ran)

    def _leave(self, request: Request) -> None:
        """Takes a request that is about to end out of the queue, or recalls it from the workers that have it."""
        if request.is_waiting:
            request.route.waiting.remove(request)
        self.dispatches.recall(request.dispatches)
        self._routes.sweep(request.route)

    def cancel(self, client: ClientSession, tag: int, places: int) -> None:
        """Ends calls that their client no longer wants; nothing is said to it."""
        for request in client.requests.about(tag, places):
            unwanted = request.places & places
            self._cancel(request if unwanted == request.places else self._divide(request, unwanted))

    def cancel_all_of(self, client: ClientSession) -> None:
        """Ends all calls of a client that is gone."""
        for request in list(client.requests):
            self._cancel(request)

    def _cancel(self, request: Request) -> None:
        self._leave(request)
        self._ledger.cancel(request)

    # Failover ------------------------------------------------------------------------------------

    def move_all_of(self, worker: WorkerSession, unsent: Container[int], now: float, *, is_abrupt: bool) -> int:
        """Moves what a lost worker held to others; returns how many calls that were.

        Args:
            is_abrupt: whether it may be that one of them has ended its process.
            unsent: tags of calls that never left for it. It was not lost with those: they may run elsewhere whatever
                they are, and a gateway that finds all its connections gone shall not count each as a loss.
        """
        held = self.dispatches.take_all_of(worker)
        suspects = oldest(held)
        running = {tag for replica in worker.replicas.values() for tag in replica.running} if is_abrupt else set()
        accused = {one.request for one in held if one.is_alone and one.tag in running and one.request.is_open}
        for dispatch in held:
            request = dispatch.request
            if not request.is_open:
                continue
            has_left = dispatch.tag not in unsent
            request.may_have_run |= has_left
            # What ran alone explains the end, and the others were not lost by their own fault.
            request.losses += has_left and request in (accused or suspects)
            if request in accused:
                self._suspects.accuse(request, worker.session, now)
                self._timers.at(now + ACQUITTED_BY_S, self._sentence, request)
            else:
                request.is_suspect |= has_left and is_abrupt and request in suspects
                if not request.dispatches:
                    self._move(request, worker, now, has_left=has_left)
        return sum(dispatch.request.calls for dispatch in held)

    def acquit(self, session: bytes, now: float) -> None:
        """Places again what was thought to have ended a worker that is there."""
        for request in self._suspects.acquit(session):
            request.is_suspect = False
            self._place_again(request, now)

    def _move(self, request: Request, lost: WorkerSession, now: float, *, has_left: bool) -> None:
        if has_left and not request.may_run_twice:
            detail = f"worker {lost.name!r} was lost with the request, which may not be run twice"
            self._end(request, Status.WORKER_LOST, detail, ran=RAN_MAYBE)
        elif has_left and request.losses >= MAX_LOSSES:
            detail = f"{request.losses} workers were lost with the request, the last was {lost.name!r}"
            self._end(request, Status.WORKER_LOST, detail, ran=RAN_MAYBE)
        else:
            self._place_again(request, now)

    # Time ----------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Expires requests, ends waits for workers, and does what was put off until now."""
        for request in self._ledger.expire(now):
            self._expire(request, now)
        for route in list(self._keyed):
            if route.waiting.expire_homes(now):
                self.serve(route, now)
            if route.waiting.wake_at() == float("inf"):
                del self._keyed[route]
        self._timers.run(now)

    def _sentence(self, accused: Request, now: float) -> None:
        if self._suspects.condemn(accused, now) and accused.is_open:
            detail = "the process of its worker ended while it ran alone"
            self._end(accused, Status.POISONED, detail, where="model", ran=RAN_YES)

    def _expire(self, request: Request, now: float) -> None:
        if request.dispatches:
            name = request.dispatches[0].replica.name
            detail = f"the time was up while worker {name!r} had the request"
            self._end(request, Status.DEADLINE_EXCEEDED, detail, where="worker", ran=RAN_MAYBE)
        elif not request.is_waiting:
            detail = "the time was up while it was waited whether its worker comes back"
            self._end(request, Status.DEADLINE_EXCEEDED, detail, where="worker")
        elif not request.route.replicas:
            self._end(request, Status.UNAVAILABLE, self._unavailable(request.route))
        elif now < request.deadline:
            # Its first worker came and is busy: from here on it waits for room, as everybody does.
            self._ledger.look_at(request, request.deadline)
        else:
            detail = f"the time was up while it waited for a worker with room for model {request.route.model!r}"
            replicas = request.route.replicas.values()
            if stuck := sum(not replica.granted for replica in replicas):
                detail += f"; {stuck} of {len(replicas)} are stuck in a batch"
            self._end(request, Status.DEADLINE_EXCEEDED, detail, where="queue")

    def _unavailable(self, route: Route[Request]) -> str:
        ready = self._roster.ready_names()
        return (
            f"no live worker for {route.words} came within the deadline, or within {self._settings.queue_wait_ms} ms,"
            f" not counting this gateway's first {REJOIN_S:g} s ({len(ready)} workers are ready for other models);"
            f" start one with: zmqinfer worker --models DIR --gateway {self._workers_address}"
        )

    def wake_at(self) -> float:
        """Returns when `on_timer` is worth calling, or infinity."""
        earliest = min(self._ledger.wake_at(), self._timers.wake_at())
        for route in self._keyed:
            earliest = min(earliest, route.waiting.wake_at())
        return earliest

    # Invariants ----------------------------------------------------------------------------------

    def check(self) -> None:
        """Asserts what must hold between any two calls."""
        queued = 0
        for route in self._routes:
            route.waiting.check()
            queued += route.waiting.count
        awaited, held = self.dispatches.check()
        accused = self._suspects.awaited()
        pending = self._ledger.pending
        assert queued + awaited + accused == pending, (queued, awaited, accused, pending)
        for worker in self._roster.by_name.values():
            for replica in worker.replicas.values():
                assert replica.held == held.get(replica, 0), (replica.name, replica.held, held.get(replica, 0))
