"""The gateway's workers: joining, telling how they are, draining, being lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from zmqinfer.errors import ProtocolError
from zmqinfer.machine.link import DRAINING
from zmqinfer.machine.members import Door, Peer, WorkerSession, WorkerState
from zmqinfer.machine.outbox import Outbox
from zmqinfer.machine.routes import Engine, Route
from zmqinfer.policy.liveness import Liveness
from zmqinfer.policy.ring import version_of
from zmqinfer.policy.rotation import Standing
from zmqinfer.records import CALLS, Kind, Record
from zmqinfer.signature import Signature

if TYPE_CHECKING:
    from zmqinfer.machine.gateway import GatewayMachine

__all__ = ["DRAIN", "REPLACED", "Workers"]

# More reasons of DISCONNECT, between a gateway and a worker. The gateway echoes "draining" and "closing":
# after the first no more requests come, after the second everything that the worker sent has arrived.
DRAIN = "drain"
REPLACED = "replaced"

# Replies to requests it was not given, after which a worker is not believed any more.
_MAX_STRAYS = 3
# Heartbeats without a sign of life, below which a closed connection is the end of a process.
_ABRUPT = 2


class Workers:
    """The sessions behind the gateway's door for workers.

    Attributes:
        events: rare happenings for the shell to report: a sentence and its values.
    """

    def __init__(self, gateway: GatewayMachine, *, session: bytes, agent: str) -> None:
        self.door = Door()
        self.events: list[tuple[str, dict[str, object]]] = []
        self._gateway = gateway
        self._session = session
        self._agent = agent
        self._by_peer: dict[Peer, WorkerSession] = {}
        self._by_name: dict[str, WorkerSession] = {}
        self._liveness: Liveness[Peer] = Liveness(gateway.settings.heartbeat_ms / 1000)

    def everyone(self) -> Iterable[WorkerSession]:
        """Returns all sessions, in the order of their names' first coming."""
        return self._by_name.values()

    def has_ready(self) -> bool:
        """Whether any worker takes requests."""
        return any(worker.state is WorkerState.READY for worker in self._by_name.values())

    def ready_names(self) -> list[str]:
        """Returns the names of those who take requests, sorted."""
        return sorted(name for name, worker in self._by_name.items() if worker.state is WorkerState.READY)

    def ring_version(self) -> str:
        """Returns what two gateways must agree on to send a key to the same worker."""
        return version_of({n: w.weight for n, w in self._by_name.items() if w.state is WorkerState.READY})

    def on_message(self, peer: Peer, kind: Kind, records: list[Record], now: float) -> None:
        """Takes one decoded message from a connection."""
        worker = self._by_peer.get(peer)
        if worker is None:
            self._on_stranger(peer, kind, records, now)
            return
        self._liveness.heard(peer, now)
        match kind:
            case Kind.REPLY:
                self._gateway.on_replies(worker, records, now)
                if worker.strays >= _MAX_STRAYS:
                    self._lose(worker, now, "it answered requests that it was not given")
            case Kind.HEARTBEAT:
                self._on_heartbeat(worker, records, now)
            case Kind.READY:
                for record in records:
                    self._on_ready(peer, record, now)
            case Kind.DISCONNECT:
                for record in records:
                    self._on_disconnect(worker, record[0], now)
            case _:
                self.on_offence(peer, f"a worker may not send {kind.name}", now)

    def _on_stranger(self, peer: Peer, kind: Kind, records: list[Record], now: float) -> None:
        if kind is Kind.READY and records:
            self._on_ready(peer, records[0], now)
        elif kind in {Kind.HELLO, Kind.REQUEST}:
            self.door.say(peer, "wrong door", f"clients dial {self._gateway.addresses[0]}, this is for workers")
        elif kind is Kind.DISCONNECT:
            # One that leaves without a session, as after our restart: tell it that it may go.
            for record in records:
                self.door.say(peer, record[0], "")
        else:
            if kind is Kind.REPLY:
                # Of a life that was given up, in all likelihood: what it held has moved.
                self._gateway.dispatches.late_replies += sum(record[CALLS] for record in records)
            self.door.no_session(peer)

    def _on_ready(self, peer: Peer, record: Record, now: float) -> None:
        session, name, agent, weight, host, models = record[:6]
        try:
            for card in models:
                Signature.from_wire(card[2])
        except ProtocolError as error:
            self.on_offence(peer, str(error), now)
            return
        known = self._by_name.get(name)
        if known is not None and known.session == session and known.outbox.address == peer and known.is_fresh:
            # It repeats itself until it hears WELCOME, and that has not left yet, for we were not there to send it.
            return
        if known is None and len(self._by_name) >= self._gateway.settings.max_workers:
            self.door.say(peer, "too many workers", f"{len(self._by_name)} workers are connected, the limit")
            return
        if known is not None:
            self._supersede(known, session, now)
        earlier = self._by_peer.get(peer)
        if earlier is not None:
            self._lose(earlier, now, "its connection joined under another name")
        worker = WorkerSession(name, session, weight / 1000, host, Outbox(peer, self.door.dirty), agent)
        self._by_peer[peer] = worker
        self._by_name[name] = worker
        self._gateway.acquit(session, now)
        self._liveness.watch(peer, now)
        worker.outbox.put(
            Kind.WELCOME,
            [
                self._session,
                self._agent,
                self._gateway.settings.heartbeat_ms,
                self._gateway.settings.max_body_bytes,
                [],
            ],
        )
        self._join(worker, models, now)
        self._report("worker joined", worker=name, models=",".join(card[0] for card in models))

    def _join(self, worker: WorkerSession, models: list[Record], now: float) -> None:
        routes = self._gateway.routes
        is_news = False
        for model, version, signature, max_rows, credits_rows, idempotent, *more in models:
            route = routes.announce(model, version)
            route.hedge = more[:1] == [True]
            # A worker of another host is news too: memory cannot be shared with all of them any more.
            is_news |= route.describe(signature, max_rows, idempotent) or not route.is_on(worker.host)
            engine = Engine(worker, route, credits_rows)
            worker.engines.append(engine)
            route.add(engine)
        for engine in worker.engines:
            self._gateway.replace(routes.settle(engine.route.model), now)
            self._gateway.serve(engine.route, now)
        if is_news:
            self._gateway.clients.announce()

    def _supersede(self, known: WorkerSession, session: bytes, now: float) -> None:
        """Ends the earlier life of a name. Its own process is told only if another one takes the name over."""
        is_another = known.session != session
        if is_another:
            address = known.outbox.address
            assert isinstance(address, bytes)
            text = f"another worker took the name {known.name!r}; give each worker a --name of its own"
            self.door.say(address, REPLACED, text)
        self._lose(known, now, "another session took its name" if is_another else "it reconnected")

    def _say(self, worker: WorkerSession, reason: str, detail: str) -> None:
        worker.outbox.put(Kind.DISCONNECT, [reason, detail])

    def _on_heartbeat(self, worker: WorkerSession, records: list[Record], now: float) -> None:
        for model, credits_rows, _, running_us, tags, *_ in records:
            if model < len(worker.engines):
                engine = worker.engines[model]
                if running_us is not None:
                    engine.told = tags
                if bool(engine.granted) != bool(credits_rows):
                    word = "goes on" if credits_rows else "is stuck in a batch"
                    self._report(f"worker {word}", worker=worker.name, model=engine.route.model)
                self._allow(engine, now, credits_rows)

    def _allow(self, engine: Engine, now: float, granted: int | None = None, *, leash: int | None = None) -> None:
        """Changes what an engine may have under way; without any it gives back what it has not begun."""
        before = engine.credits
        engine.route.allow(engine, granted, leash=leash)
        if engine.credits > before and engine.route.waiting:
            self._gateway.serve(engine.route, now)
        elif before and not engine.credits:
            self._gateway.recall(engine)

    def _compare(self, route: Route, now: float) -> None:
        """Puts engines out that are much worse than the others of their model, and lets them in again."""
        works = {name: engine.work() for name, engine in route.engines.items()}
        route.look(works, now)
        stuck = [name for name, engine in route.engines.items() if not engine.granted]
        for name, standing, why in route.rotation.look(works, stuck, now):
            leash = {Standing.IN: None, Standing.OUT: 0, Standing.TRIAL: 1}[standing]
            self._allow(route.engines[name], now, leash=leash)
            self._report(f"worker {standing.value}", worker=name, model=route.model, why=why)

    def _on_disconnect(self, worker: WorkerSession, reason: str, now: float) -> None:
        if reason == DRAINING:
            self._retire(worker, now)
            worker.state = WorkerState.DRAINING
            self._say(worker, DRAINING, "no more requests will come")
            self._report("worker draining", worker=worker.name, held=sum(e.held for e in worker.engines))
            return
        address = worker.outbox.address
        assert isinstance(address, bytes)
        self._lose(worker, now, "it left")
        self.door.say(address, reason, "")

    def drain(self, name: str) -> bool:
        """Asks a worker to drain, as SIGTERM does; False if there is none of that name."""
        worker = self._by_name.get(name)
        if worker is None:
            return False
        self._say(worker, DRAIN, "an operator asked for it")
        return True

    def part(self) -> None:
        """Ends all sessions, as the last thing that a gateway does: workers then need not find out by its silence."""
        for peer in self._by_peer:
            self.door.no_session(peer)

    def _retire(self, worker: WorkerSession, now: float) -> None:
        """Takes a worker off the ring; what it holds stays with it."""
        gone = False
        for engine in worker.engines:
            engine.route.drop(engine)
            gone |= not engine.route.engines or not engine.route.is_on(worker.host)
        for engine in worker.engines:
            self._gateway.replace(self._gateway.routes.settle(engine.route.model), now)
            if engine.route.engines:
                self._gateway.serve(engine.route, now)
            else:
                self._gateway.replace(engine.route.waiting.clear(), now)
        if gone:
            self._gateway.clients.announce()

    def _lose(self, worker: WorkerSession, now: float, cause: str, *, is_closed: bool = False) -> None:
        """Ends a worker's session and moves all that it held to others."""
        address = worker.outbox.address
        assert isinstance(address, bytes)
        # A process that ends closes its connections at once. Of one that is stopped, or cut off, there is no sign
        # before they are found dead.
        heartbeat_s = self._gateway.settings.heartbeat_ms / 1000
        is_abrupt = is_closed and self._liveness.silent_for(address, now) < _ABRUPT * heartbeat_s
        self._by_peer.pop(address, None)
        if self._by_name.get(worker.name) is worker:
            del self._by_name[worker.name]
        self._liveness.forget(address)
        worker.state = WorkerState.DEAD
        unsent = worker.outbox.unsent_calls()
        worker.outbox.clear()
        self._retire(worker, now)
        moved = self._gateway.move_all_of(worker, unsent, now, is_abrupt=is_abrupt)
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
            for route in self._gateway.routes:
                self._compare(route, now)

    def wake_at(self) -> float | None:
        """Returns when to beat or to look for the silent ones."""
        return self._liveness.wake_at()

    def _report(self, event: str, **values: object) -> None:
        self.events.append((event, values))
