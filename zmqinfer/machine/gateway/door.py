"""One of the gateway's two sockets as the machine sees it: what leaves through it, and who offended."""

from __future__ import annotations

from zmqinfer.machine.gateway.members import Peer
from zmqinfer.machine.outbox import Outbox
from zmqinfer.records import NO_SESSION, Kind

__all__ = ["Door"]

# Broken messages before a peer is cut off; it hears so the first time.
MAX_OFFENCES = 3
# How many peers that offended are remembered. Each takes a connection to make.
_MAX_REMEMBERED = 10_000


class Door:
    """What leaves through a socket, and who offended there.

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
