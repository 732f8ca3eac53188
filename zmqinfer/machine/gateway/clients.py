"""The gateway's clients: greeting, coming back on another connection, vanishing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from zmqinfer.machine.gateway.door import Door
from zmqinfer.machine.gateway.intake import Intake
from zmqinfer.machine.gateway.members import Peer
from zmqinfer.machine.gateway.requests import ClientSession
from zmqinfer.machine.gateway.scheduler import Scheduler
from zmqinfer.machine.gateway.tables import Tables
from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.admission import Usage
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

    def __init__(self, tables: Tables, intake: Intake, scheduler: Scheduler, answers: Answers) -> None:
        self.door = Door()
        self.is_draining = False
        self._tables = tables
        self._intake = intake
        self._scheduler = scheduler
        self._answers = answers
        self._by_peer: dict[Peer, ClientSession] = {}
        self._by_session: dict[bytes, ClientSession] = {}
        # Sessions without a connection, and since when.
        self._lost_at: dict[bytes, float] = {}

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
                self._on_hello(peer, records[0])
            elif kind in {Kind.READY, Kind.MODELS, Kind.REPLY}:
                self.door.say(peer, "wrong door", f"workers dial {self._tables.workers_address}, this is for clients")
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
        if client is None and self.is_draining:
            # It is not answered, and says this again until there is another gateway here.
            return
        earlier = self._by_peer.get(peer)
        if earlier is not None and earlier is not client:
            # A connection has one session; another one on it would be left behind, and nobody would end it.
            self._end(earlier)
        if client is None:
            limit = self._tables.settings.max_clients
            if len(self._by_session) >= limit:
                self.door.say(peer, "too many clients", f"{limit} clients are connected, which is the limit")
                return
            client = ClientSession(session, Outbox(peer, self.door.dirty), record[3], Usage())
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
        client.outbox.put(Kind.WELCOME, self._tables.welcome(self._tables.routes.cards(client.host)))

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
            self._tables.timers.at(now + REBIND_S, self._end_lost, client)

    def _end_lost(self, client: ClientSession, now: float) -> None:
        # The same sum as that of the timer: the difference may be a rounding error less than REBIND_S.
        if self._lost_at.get(client.session, now) + REBIND_S <= now:
            self._end(client)

    def probe(self, peer: Peer, now: float) -> None:
        """Sends something to a peer whose connection may be gone: the attempt will tell.

        Once more after a heartbeat: a socket may be told of the end of a connection later than its monitor is.
        """
        if self._beat(peer, now):
            self._tables.timers.at(now + self._tables.settings.heartbeat_ms / 1000, self._beat, peer)

    def _beat(self, peer: Peer, _now: float) -> bool:
        client = self._by_peer.get(peer)
        if client is not None:
            client.outbox.beat()
        return client is not None

    def end_unread(self) -> None:
        """Ends the sessions of those who do not read for too long."""
        for lost in [self._by_session[session] for session in self._lost_at]:
            if lost.outbox.size > MAX_BACKLOG_BYTES:
                self._end(lost)
        # The others are among those with something to send: no need to look at all.
        for outbox in [outbox for outbox in self.door.dirty if outbox.size > MAX_BACKLOG_BYTES]:
            reader = self._by_peer.get(outbox.address) if isinstance(outbox.address, bytes) else None
            if reader is not None and reader.outbox is outbox:
                self._end(reader)

    def _end(self, client: ClientSession) -> None:
        self._scheduler.cancel_all_of(client)
        client.outbox.clear()
        if isinstance(client.outbox.address, bytes):
            self._by_peer.pop(client.outbox.address, None)
        self._lost_at.pop(client.session, None)
        del self._by_session[client.session]
