"""The gateway's workers: joining, telling how they are, draining, being lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zmqinfer.errors import ProtocolError, Status
from zmqinfer.machine.gateway.door import Door
from zmqinfer.machine.gateway.members import Peer, Replica, WorkerSession, WorkerState
from zmqinfer.machine.gateway.requests import Request
from zmqinfer.machine.gateway.routes import Route
from zmqinfer.machine.gateway.scheduler import Scheduler
from zmqinfer.machine.gateway.tables import Tables
from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.liveness import Liveness
from zmqinfer.policy.rotation import Standing
from zmqinfer.records import DRAIN, DRAINING, MAX_MODELS, MAX_TEXT, PLACES, REPLACED, Kind, Record
from zmqinfer.signature import Signature

__all__ = ["Workers"]

# Replies to requests it was not given, after which a worker is not believed any more.
_MAX_STRAYS = 3
# Silence, below which a closed connection is the end of a process. ZeroMQ closes that of one that is stopped, or cut
# off, after as much (node/sockets.py); one that is kept from speaking by others on its machine is silent for less.
_ABRUPT_S = 1.5


class Workers:
    """The sessions behind the gateway's door for workers.

    Attributes:
        events: rare happenings for the shell to report: a sentence and its values.
    """

    def __init__(self, tables: Tables, scheduler: Scheduler, announce: Callable[[], None]) -> None:
        """Makes a table without workers; `announce` is called when what can be called is another list."""
        self.door = Door()
        self.events: list[tuple[str, dict[str, object]]] = []
        self._tables = tables
        self._routes = tables.routes
        self._roster = tables.roster
        self._scheduler = scheduler
        self._announce = announce
        self._by_peer: dict[Peer, WorkerSession] = {}
        self._liveness: Liveness[Peer] = Liveness(tables.settings.heartbeat_ms / 1000)

    def on_message(self, peer: Peer, kind: Kind, records: list[Record], now: float, _gap: float = 0.0) -> None:
        """Takes one decoded message from a connection."""
        worker = self._by_peer.get(peer)
        if worker is None:
            self._on_stranger(peer, kind, records, now)
            return
        self._liveness.heard(peer, now)
        match kind:
            case Kind.REPLY:
                self._scheduler.on_replies(worker, records, now)
                if worker.strays >= _MAX_STRAYS:
                    self._lose(worker, now, "it answered requests that it was not given")
            case Kind.HEARTBEAT:
                self._on_heartbeat(worker, records, now)
            case Kind.MODELS:
                self._on_models(worker, peer, records, now)
            case Kind.READY:
                for record in records:
                    self._on_ready(peer, record, now)
            case Kind.DISCONNECT:
                for record in records:
                    self._on_disconnect(worker, record[0], now)
                    if worker.state is WorkerState.DEAD:
                        break
            case _:
                self.on_offence(peer, f"a worker may not send {kind.name}", now)

    def _on_stranger(self, peer: Peer, kind: Kind, records: list[Record], now: float) -> None:
        if kind is Kind.READY and records:
            self._on_ready(peer, records[0], now)
        elif kind in {Kind.HELLO, Kind.REQUEST}:
            self.door.say(peer, "wrong door", f"clients dial {self._tables.clients_address}, this is for workers")
        elif kind is Kind.DISCONNECT:
            # One that leaves without a session, as after our restart: tell it that it may go.
            for record in records:
                self.door.say(peer, record[0], "")
        elif kind is not Kind.MODELS:  # it follows a READY that was turned down, or a HEARTBEAT follows it
            if kind is Kind.REPLY:
                # It belongs to a life that was given up, in all likelihood: what was dispatched to that has moved.
                self._scheduler.dispatches.late_replies += sum(record[PLACES].bit_count() for record in records)
            self.door.no_session(peer)

    def _on_ready(self, peer: Peer, record: Record, now: float) -> None:
        session, name, agent, weight, host = record[:5]
        known = self._roster.by_name.get(name)
        if known and known.outbox.holds(Kind.WELCOME) and (known.session, known.outbox.address) == (session, peer):
            # It repeats itself until it hears WELCOME, and that has not left yet, for we were not there to send it.
            return
        if known is None and len(self._roster.by_name) >= self._tables.settings.max_workers:
            self.door.say(peer, "too many workers", f"{len(self._roster.by_name)} workers are connected, the limit")
            return
        if known is not None:
            self._supersede(known, session, now)
        earlier = self._by_peer.get(peer)
        if earlier is not None:
            self._lose(earlier, now, "its connection joined under another name")
        worker = WorkerSession(name, session, weight / 1000, host, Outbox(peer, self.door.dirty), agent)
        self._by_peer[peer] = worker
        self._roster.by_name[name] = worker
        self._scheduler.acquit(session, now)
        self._liveness.watch(peer, now)
        worker.outbox.put(Kind.WELCOME, self._tables.welcome([]))
        self._report("worker joined", worker=name)

    def _on_models(self, worker: WorkerSession, peer: Peer, records: list[Record], now: float) -> None:
        """Takes word of models that a worker serves from now on, serves otherwise, or serves no more."""
        try:
            for _, card, *_ in records:
                if card is not None:
                    Signature.from_wire(card[2])
        except ProtocolError as error:
            self.on_offence(peer, str(error), now)
            return
        is_news = False
        changed: dict[Route[Request], None] = {}
        for number, card, *_ in records:
            replica = worker.replicas.get(number)
            if replica is not None and (card is None or card[:2] != [replica.model, replica.version]):
                del worker.replicas[number]
                is_news |= self._drop(replica, changed)
            if card is not None:
                is_news |= self._serve(worker, number, card, changed, now)
        self._settle(changed, now)
        if is_news:
            self._announce()
        models = ",".join(replica.model for replica in worker.replicas.values())
        self._report("worker serves", worker=worker.name, models=models)

    def _serve(
        self, worker: WorkerSession, number: int, card: Record, changed: dict[Route[Request], None], now: float
    ) -> bool:
        """Takes a model's card; True if clients are to hear of it."""
        model, version, signature, max_rows, credits_rows, idempotent, *more = card
        replica = worker.replicas.get(number)
        # One that takes the place of another one comes before that goes.
        names = {(other.model, other.version) for other in worker.replicas.values()}
        if replica is None and len(worker.replicas) >= MAX_MODELS + ((model, version) in names):
            self._report("worker has too many models", worker=worker.name, model=model, limit=MAX_MODELS)
            return False
        route = self._routes.find(model, version)
        route.hedge = more[:1] == [True]
        # A worker of another host is news too: memory cannot be shared with all of them any more.
        is_news = route.describe(signature, max_rows, idempotent) or not route.is_on(worker.host)
        if replica is not None:
            replica.max_rows, replica.granted = max_rows, credits_rows
            self._allow(replica, now)
            return is_news
        replica = worker.replicas[number] = Replica(worker, model, version, max_rows, credits_rows)
        if worker.state is WorkerState.READY:
            route.add(replica)
        changed[route] = None
        return is_news

    def _drop(self, replica: Replica, changed: dict[Route[Request], None]) -> bool:
        """Takes a replica off the ring; what it holds stays with it. True if clients are to hear of it."""
        route = self._route_of(replica)
        route.drop(replica)
        changed[route] = None
        return not route.replicas or not route.is_on(replica.worker.host)

    def _settle(self, changed: Iterable[Route[Request]], now: float) -> None:
        """Serves those who wait in routes whose replicas have changed, or places them again."""
        for route in changed:
            self._scheduler.replace(self._routes.settle(route), now)
            if route.replicas:
                self._scheduler.serve(route, now)
            else:
                self._scheduler.replace(route.waiting.clear(), now)

    def _supersede(self, known: WorkerSession, session: bytes, now: float) -> None:
        """Ends the earlier life of a name. Its process hears of it only if another one takes the name over."""
        is_another = known.session != session
        if is_another:
            address = known.outbox.address
            assert isinstance(address, bytes)
            text = f"another worker took the name {known.name!r}; give each worker a --name of its own"
            self.door.say(address, REPLACED, text)
        self._lose(known, now, "another session took its name" if is_another else "it reconnected")

    def _on_heartbeat(self, worker: WorkerSession, records: list[Record], now: float) -> None:
        for model, credits_rows, _, running_us, tags, *_ in records:
            replica = worker.replicas.get(model)
            if replica is not None:
                if running_us is not None:
                    replica.running = tags
                if bool(replica.granted) != bool(credits_rows):
                    word = "goes on" if credits_rows else "is stuck in a batch"
                    self._report(f"worker {word}", worker=worker.name, model=replica.model)
                replica.granted = credits_rows
                self._allow(replica, now)

    def _allow(self, replica: Replica, now: float) -> None:
        """Has a change of a replica's credits take effect; without any it gives back what it has not begun."""
        before = replica.credits
        route = self._route_of(replica)
        route.allow(replica)
        if before and not replica.credits:
            self._scheduler.dispatches.recall_all_of(replica)
        if replica.credits != before and route.waiting:
            self._scheduler.serve(route, now)

    def _route_of(self, replica: Replica) -> Route[Request]:
        return self._routes.find(replica.model, replica.version)

    def _compare(self, route: Route[Request], now: float) -> None:
        """Puts replicas out that are much worse than the others of their model, and lets them in again."""
        works = {name: replica.work() for name, replica in route.replicas.items()}
        route.look(works, now)
        stuck = [name for name, replica in route.replicas.items() if not replica.granted]
        for name, standing, why in route.rotation.look(works, stuck, now):
            route.replicas[name].limit = {Standing.IN: None, Standing.OUT: 0, Standing.TRIAL: 1}[standing]
            self._allow(route.replicas[name], now)
            self._report(f"worker {standing.value}", worker=name, model=route.model, why=why)

    def _on_disconnect(self, worker: WorkerSession, reason: str, now: float) -> None:
        if reason == DRAINING:
            self._retire(worker, now)
            worker.state = WorkerState.DRAINING
            worker.outbox.put(Kind.DISCONNECT, [DRAINING, "no more requests will come"])
            rows = sum(replica.held for replica in worker.replicas.values())
            self._report("worker draining", worker=worker.name, held=rows)
            return
        address = worker.outbox.address
        assert isinstance(address, bytes)
        self._lose(worker, now, "it left")
        self.door.say(address, reason, "")

    def obey(self, record: Record) -> Record:
        """Does what an operator's ADMIN record orders; returns the record that answers it."""
        tag, command, name = record[:3]
        worker = self._roster.by_name.get(name)
        status, detail = Status.OK, f"worker {name!r} was asked to drain"
        if command != "drain":
            status, detail = Status.INVALID_ARGUMENT, f"command {command!r} is not known; known: drain"
        elif worker is not None:
            worker.outbox.put(Kind.DISCONNECT, [DRAIN, "an operator asked for it"])
        else:
            names = ", ".join(sorted(self._roster.by_name)) or "none"
            status, detail = Status.NOT_FOUND, f"no worker {name!r} here; connected: {names}"
        return [tag, command, name, status, detail[:MAX_TEXT]]

    def part(self) -> None:
        """Ends all sessions, as the last thing that a gateway does: workers then need not find out by its silence."""
        for peer in self._by_peer:
            self.door.no_session(peer)

    def _retire(self, worker: WorkerSession, now: float) -> None:
        """Takes a worker off the ring; what it holds stays with it."""
        changed: dict[Route[Request], None] = {}
        news = [replica for replica in worker.replicas.values() if self._drop(replica, changed)]
        self._settle(changed, now)
        if news:
            self._announce()

    def _lose(self, worker: WorkerSession, now: float, cause: str, *, is_closed: bool = False) -> None:
        """Ends a worker's session and moves all that it held to others."""
        address = worker.outbox.address
        assert isinstance(address, bytes)
        is_abrupt = is_closed and self._liveness.silent_for(address, now) < _ABRUPT_S
        self._by_peer.pop(address, None)
        if self._roster.by_name.get(worker.name) is worker:
            del self._roster.by_name[worker.name]
        self._liveness.forget(address)
        worker.state = WorkerState.DEAD
        unsent = worker.outbox.unsent()
        worker.outbox.clear()
        self._retire(worker, now)
        moved = self._scheduler.move_all_of(worker, unsent, now, is_abrupt=is_abrupt)
        self._report("worker gone", worker=worker.name, cause=cause, moved=moved)

    def on_offence(self, peer: Peer, detail: str, now: float) -> None:
        """Notes a broken message; a worker that is cut off for it is lost."""
        if self.door.offend(peer, detail):
            worker = self._by_peer.get(peer)
            if worker is not None:
                self._lose(worker, now, "it broke the protocol three times")

    def on_unreachable(self, peer: Peer, now: float) -> None:
        """Notes that a connection is gone, and with it this life of its worker."""
        self.door.forget(peer)
        worker = self._by_peer.get(peer)
        if worker is not None:
            self._lose(worker, now, "its connection closed", is_closed=True)

    def probe_all(self) -> None:
        """Sends something to every worker: where the connection is gone, the attempt will tell."""
        for worker in self._by_peer.values():
            worker.outbox.beat()

    def is_judging(self, now: float) -> bool:
        """Whether somebody is about to be given up for silence, and everything that came should be read before."""
        return self._liveness.is_judging(now)

    def on_timer(self, now: float) -> None:
        """Beats, and gives up those who were silent for too long."""
        for peer in self._liveness.lost(now):
            silent_s = self._liveness.silent_for(peer, now)
            self._lose(self._by_peer[peer], now, f"silent for {silent_s:.1f} s")
        if self._liveness.is_beat_due(now):
            self.probe_all()
            for route in self._routes.served:
                self._compare(route, now)

    def wake_at(self) -> float:
        """Returns when to beat or to look for the silent ones."""
        return self._liveness.wake_at()

    def _report(self, event: str, **values: object) -> None:
        self.events.append((event, values))
