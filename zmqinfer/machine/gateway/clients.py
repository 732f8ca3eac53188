"""The gateway's clients: greeting, coming back on another connection, vanishing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeAlias

from zmqinfer.config import GatewaySettings
from zmqinfer.machine.gateway.door import Door
from zmqinfer.machine.gateway.intake import Intake
from zmqinfer.machine.gateway.members import Peer
from zmqinfer.machine.gateway.requests import ClientSession, Owner, Request
from zmqinfer.machine.gateway.routes import Routes
from zmqinfer.machine.gateway.scheduler import Scheduler
from zmqinfer.machine.outbox import Outbox
from zmqinfer.records import DRAINING, Kind, Record

__all__ = ["Answers", "Clients"]

# What answers a STATS or ADMIN record: records, at an instant.
Answers: TypeAlias = Callable[[Kind, Record, float], list[Record]]

# A client that vanished may come back for its answers within this time; so long they are kept.
REBIND_S = 5.0
# A client that does not read: its answers pile up here, and then its session ends.
MAX_BACKLOG_BYTES = 64 * 2**20


class Clients:
    """The sessions behind the gateway's door for clients.

    Attributes:
        is_draining: whether nobody new is welcome, and those who are here are to leave.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        routes: Routes[Request],
        intake: Intake,
        scheduler: Scheduler,
        answers: Answers,
        *,
        session: bytes,
        agent: str,
        workers_address: str,
    ) -> None:
        self.door = Door()
        self.is_draining = False
        self._settings = settings
        self._routes = routes
        self._intake = intake
        self._scheduler = scheduler
        self._answers = answers
        self._session = session
        self._agent = agent
        self._workers_address = workers_address
        self._by_peer: dict[Peer, ClientSession] = {}
        self._by_session: dict[bytes, ClientSession] = {}
        # Sessions without a connection, and since when.
        self._lost_at: dict[bytes, float] = {}
        # Who is to be probed again, and when.
        self._probed: deque[tuple[float, Peer]] = deque()

    def __len__(self) -> int:
        return len(self._by_session)

    def everyone(self) -> Iterable[ClientSession]:
        """Returns all sessions, in the order of their first greeting."""
        return self._by_session.values()

    def on_message(self, peer: Peer, kind: Kind, records: list[Record], now: float, gap: float = 0.0) -> None:
        """Takes one decoded message from a connection."""
        client = self._by_peer.get(peer)
        if client is None:
            if kind is Kind.HELLO and records:
                if not self.is_draining or records[0][0] in self._by_session:
                    # Else it is not answered: it says this again until there is another gateway here.
                    self._on_hello(peer, records[0])
            elif kind in {Kind.READY, Kind.MODELS, Kind.REPLY}:
                self.door.say(peer, "wrong door", f"workers dial {self._workers_address}, this is for clients")
            elif kind is not Kind.DISCONNECT:
                self.door.no_session(peer)
            return
        match kind:
            case Kind.REQUEST:
                self._intake.take(client, records, now, gap)
            case Kind.CANCEL:
                for tag, places, *_ in records:
                    self._scheduler.cancel(client, tag, places)
            case Kind.HEARTBEAT:
                client.outbox.beat()
            case Kind.HELLO:
                for record in records:
                    self._on_hello(peer, record)
            case Kind.DISCONNECT:
                self._end(client)
            case Kind.STATS | Kind.ADMIN:
                for record in records:
                    for answer in self._answers(kind, record, now):
                        client.outbox.put(kind, answer, sum(len(x) for x in answer if isinstance(x, bytes | str)))
            case _:
                self.on_offence(peer, f"a client may not send {kind.name}", now)

    def _on_hello(self, peer: Peer, record: Record) -> None:
        session: bytes = record[0]
        client = self._by_session.get(session)
        earlier = self._by_peer.get(peer)
        if earlier is not None and earlier is not client:
            # A connection has one session; another one on it would be left behind, and nobody would end it.
            self._end(earlier)
        if client is None:
            limit = self._settings.max_clients
            if len(self._by_session) >= limit:
                self.door.say(peer, "too many clients", f"{limit} clients are connected, which is the limit")
                return
            client = ClientSession(session, Outbox(peer, self.door.dirty), record[3], Owner())
            self._by_session[session] = client
        elif client.outbox.address != peer:
            # Back on another connection: what it is owed goes there, and the old one is a stranger's.
            if isinstance(client.outbox.address, bytes):
                self._by_peer.pop(client.outbox.address, None)
            client.outbox.readdress(peer)
            self._lost_at.pop(session, None)
        self._by_peer[peer] = client
        self._welcome(client)
        if self.is_draining:
            self._dismiss(client)

    def _welcome(self, client: ClientSession) -> None:
        client.outbox.discard(Kind.WELCOME)
        client.outbox.put(
            Kind.WELCOME,
            [
                self._session,
                self._agent,
                self._settings.heartbeat_ms,
                self._settings.max_body_bytes,
                self._routes.cards(client.host),
            ],
        )

    def drain(self) -> None:
        """Tells every client to send no more, and to say goodbye when it has all its answers."""
        self.is_draining = True
        for client in self._by_peer.values():
            self._dismiss(client)

    @staticmethod
    def _dismiss(client: ClientSession) -> None:
        client.outbox.put(Kind.DISCONNECT, [DRAINING, "this gateway finishes what it has, and ends"])

    def announce(self) -> None:
        """Tells every client that the list of models is another one."""
        for client in self._by_peer.values():
            self._welcome(client)

    def on_offence(self, peer: Peer, detail: str, now: float) -> None:  # noqa: ARG002 - as the workers' side has it
        """Notes a broken message; a client that is cut off for it loses its session."""
        if self.door.offend(peer, detail):
            client = self._by_peer.pop(peer, None)
            if client is not None:
                self._end(client)

    def on_unreachable(self, peer: Peer, now: float) -> None:
        """Notes that a connection is gone; the session waits for its client to come back."""
        self.door.forget(peer)
        client = self._by_peer.pop(peer, None)
        if client is not None:
            client.outbox.readdress(None)
            self._lost_at[client.session] = now

    def probe(self, peer: Peer, now: float) -> None:
        """Sends something to a peer whose connection may be gone: the attempt will tell.

        Once more after a heartbeat: a socket may be told of the end of a connection later than its monitor is.
        """
        client = self._by_peer.get(peer)
        if client is not None:
            client.outbox.beat()
            self._probed.append((now + self._settings.heartbeat_ms / 1000, peer))

    def on_timer(self, now: float) -> None:
        """Probes again, and ends the sessions of those who stayed away, or do not read, for too long."""
        while self._probed and self._probed[0][0] <= now:
            client = self._by_peer.get(self._probed.popleft()[1])
            if client is not None:
                client.outbox.beat()
        for session, lost_at in list(self._lost_at.items()):
            lost = self._by_session[session]
            # The same sum as in `wake_at`: the difference may be a rounding error less than REBIND_S.
            if now >= lost_at + REBIND_S or lost.outbox.size > MAX_BACKLOG_BYTES:
                self._end(lost)
        # Who does not read is among those with something to send: no need to look at all the others.
        for outbox in [outbox for outbox in self.door.dirty if outbox.size > MAX_BACKLOG_BYTES]:
            reader = self._by_peer.get(outbox.address) if isinstance(outbox.address, bytes) else None
            if reader is not None and reader.outbox is outbox:
                self._end(reader)

    def wake_at(self) -> float | None:
        """Returns when the first lost session ends, or somebody is to be probed again."""
        # Both are in the order in which they began.
        ends_at = next(iter(self._lost_at.values())) + REBIND_S if self._lost_at else None
        if self._probed and (ends_at is None or self._probed[0][0] < ends_at):
            return self._probed[0][0]
        return ends_at

    def _end(self, client: ClientSession) -> None:
        for request in list(client.requests):
            self._scheduler.withdraw(request)
        client.outbox.clear()
        if isinstance(client.outbox.address, bytes):
            self._by_peer.pop(client.outbox.address, None)
        self._lost_at.pop(client.session, None)
        del self._by_session[client.session]
