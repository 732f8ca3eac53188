"""A gateway's peers: who has a session, on which connection, and who offends.

The ROUTER names each connection afresh, so a peer (its routing id) is a connection and no more;
what lasts over a reconnect is the session, whose id the other side chose at random and says again.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

from zmqinfer.machine.flight import Flight
from zmqinfer.machine.link import NO_SESSION
from zmqinfer.machine.outbox import Outbox
from zmqinfer.machine.routes import Engine
from zmqinfer.policy.admission import Usage
from zmqinfer.records import Kind

__all__ = ["ClientSession", "Door", "Peer", "WorkerSession", "WorkerState"]

Peer: TypeAlias = bytes

# A client that vanished may come back for its answers within this time; so long they are kept.
REBIND_S = 5.0
# A client that does not read: its answers pile up here, and then its session ends.
MAX_BACKLOG_BYTES = 64 * 2**20
# Broken messages before a peer is cut off; it is told the first time.
MAX_OFFENCES = 3
# How many peers that offended are remembered. Each takes a connection to make.
_MAX_REMEMBERED = 10_000


class WorkerState(enum.StrEnum):
    """What the gateway may do with a worker."""

    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


class ClientSession:
    """One client, over all its connections.

    Attributes:
        session: the id that the client chose.
        host: what it shares memory with; None: nobody.
        outbox: its answers; addressed to None while it has no connection.
        flights: its requests in hand, each under its own tag of the first call.
    """

    __slots__ = ("flights", "host", "outbox", "session", "usage")

    def __init__(self, session: bytes, outbox: Outbox, host: bytes | None) -> None:
        self.session = session
        self.host = host
        self.outbox = outbox
        self.flights: dict[int, Flight] = {}
        self.usage = Usage()


class WorkerSession:
    """One life of one worker on one connection; a reconnect begins another life.

    Attributes:
        name: what the ring knows it by.
        agent: program, version and process, in its own words.
        host: what it shares memory with; None: nobody.
        engines: its models, in the order of its READY, which HEARTBEAT's records refer to.
        strays: replies it sent to requests that it was not given.
    """

    __slots__ = ("agent", "engines", "host", "name", "outbox", "session", "state", "strays", "weight")

    def __init__(
        self, name: str, session: bytes, weight: float, host: bytes | None, outbox: Outbox, agent: str = ""
    ) -> None:
        self.name = name
        self.agent = agent
        self.host = host
        self.session = session
        self.weight = weight
        self.outbox = outbox
        self.state = WorkerState.READY
        self.engines: list[Engine] = []
        self.strays = 0

    @property
    def is_fresh(self) -> bool:
        """Whether its WELCOME has still to leave, and with it all that it was given."""
        return self.outbox.holds(Kind.WELCOME)


class Door:
    """One of the gateway's two sockets as the machine sees it: what leaves through it, and who offended.

    Attributes:
        dirty: outboxes with something to send; the shell empties them once a turn.
        cut: peers to cut off; the shell does it and clears the list.
        unheard: peers to whom nobody listens any more.
        offences: how many broken messages came.
    """

    __slots__ = ("_offences", "cut", "dirty", "offences", "unheard")

    def __init__(self) -> None:
        self.dirty: list[Outbox] = []
        self._offences: dict[Peer, int] = {}
        self.cut: list[Peer] = []
        self.unheard: set[Peer] = set()
        self.offences = 0

    def say(self, peer: Peer, reason: str, detail: str) -> None:
        """Sends DISCONNECT to a peer that has no session, and so no outbox of its own."""
        Outbox(peer, self.dirty, is_owed=False).put(Kind.DISCONNECT, [reason, detail], len(detail))

    def no_session(self, peer: Peer) -> None:
        """Asks a stranger for its greeting."""
        self.say(peer, NO_SESSION, "say HELLO or READY first, with your session id, and resend what is pending")

    def offend(self, peer: Peer, detail: str) -> bool:
        """Counts a broken message. The first is answered; with the third the peer is to be cut off: True."""
        self.offences += 1
        count = self._offences.pop(peer, 0) + 1
        self._offences[peer] = count
        if len(self._offences) > _MAX_REMEMBERED:
            self.forget(next(iter(self._offences)))
        if count == 1:
            self.say(peer, "protocol", detail)
        if count == MAX_OFFENCES:
            self.cut.append(peer)
            self.unheard.add(peer)
        return count >= MAX_OFFENCES

    def forget(self, peer: Peer) -> None:
        """Drops what is remembered of a connection that is over."""
        self._offences.pop(peer, None)
        self.unheard.discard(peer)
