"""The dialling side of a session: a client's or a worker's view of one gateway.

A link greets (HELLO or READY) with the node's session id, and counts as up when WELCOME comes.
What it has to say leaves together with the greeting. ZeroMQ reconnects by itself and tells
nobody; so a gateway that does not know us says "no session", or says nothing at all, and
either way the link greets again with the same session id.
"""

from __future__ import annotations

import enum

from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.liveness import MISSES
from zmqinfer.records import CLOSING, MAX_COUNT, NO_SESSION, Kind, Record
from zmqinfer.wire import most_frame_bytes

__all__ = ["Leave", "Link", "LinkState"]


class LinkState(enum.Enum):
    """Where the session stands."""

    GREETING = "greeting"
    UP = "up"
    # The gateway drains: what it has it will answer, and nothing new is sent to it.
    LEAVING = "leaving"
    # It has answered all, and we have said goodbye: each heartbeat it is greeted anew, and there is nothing behind it.
    LEFT = "left"
    # It ended, and says and takes nothing more.
    CLOSED = "closed"


class Leave(enum.Enum):
    """How far a node has come in leaving a gateway for good."""

    # It is to be left as soon as there is another one.
    WANTED = "wanted"
    BEGUN = "begun"
    # A worker's gateway knows it, and then has all answers.
    HEARD = "heard"
    ANSWERED = "answered"


class Link:
    """One gateway as the node at the other end sees it.

    Attributes:
        address: where the gateway listens, for people.
        outbox: what must be sent to it.
        session: the gateway's own session id, empty until its first WELCOME.
        welcomes: how many sessions began; 0 means that this gateway was never reached.
        leave: how far it has come in being left for good; None: it stays.
        warn_at: when it is a matter for people that it is not there.
        most_bytes: the largest frame that it takes, as its last WELCOME says.
        is_doubtful: whether a call ended while the gateway said nothing in all its time; until it says anything.
        sought_at: since when it is not there, if it is not.
    """

    __slots__ = (
        "_greeted_at", "_heard_at", "_heartbeat_s", "_kind", "_patience_s", "_speak_s", "_spoke_at", "address",
        "greeting", "is_doubtful", "leave", "most_bytes", "outbox", "session", "sought_at", "state", "warn_at",
        "welcomes",
    )  # fmt: skip

    def __init__(
        self, number: int, address: str, kind: Kind, greeting: Record, heartbeat_s: float, dirty: list[Outbox]
    ) -> None:
        self.address = address
        self.outbox = Outbox(number, dirty)
        self.greeting = greeting
        self.most_bytes = MAX_COUNT
        self.session = b""
        self.state = LinkState.GREETING
        self.welcomes = 0
        self.is_doubtful = False
        self.leave: Leave | None = None
        self.sought_at = self.warn_at = 0.0
        self._kind = kind
        # Both ends may have been given different heartbeats: speak at the shorter, judge by the longer.
        self._heartbeat_s = self._speak_s = self._patience_s = heartbeat_s
        self._greeted_at = 0.0
        self._heard_at = 0.0
        self._spoke_at = 0.0

    def greet(self, now: float) -> None:
        """Says who we are. What is pending belongs behind it and is put there by the caller.

        Unless it has said goodbye: it may still be the gateway that drains whom this reaches, and nobody can tell what
        became of requests there. It stays LEFT until there is a WELCOME.
        """
        if self.state in _HEARD or not self._greeted_at:
            self.sought_at = now
        if self.state is not LinkState.LEFT:
            self.state = LinkState.GREETING
        self._greeted_at = self._spoke_at = self._heard_at = now
        self.outbox.clear()
        self.outbox.put(self._kind, self.greeting)

    def welcome(self, record: Record, now: float) -> None:
        """Takes the gateway's WELCOME."""
        self.session = record[0]
        theirs = record[2] / 1000
        self.most_bytes = most_frame_bytes(record[3])
        self._speak_s = min(self._heartbeat_s, theirs)
        self._patience_s = max(self._heartbeat_s, theirs)
        self.state = LinkState.UP
        self.welcomes += 1
        self._heard_at = now

    def part(self, now: float) -> None:
        """Says goodbye to a gateway that drains."""
        self.outbox.put(Kind.DISCONNECT, [CLOSING, ""])
        self.state = LinkState.LEFT
        self._greeted_at = now

    def has_spoken_since(self, then: float) -> bool:
        """Whether there was a sign of life after an instant."""
        return self._heard_at > then

    def heard(self, now: float) -> None:
        """Notes a sign of life."""
        self._heard_at = now

    def rouse(self, now: float) -> None:
        """Begins to expect signs of life, after a time in which nobody owed any.

        After a longer one it greets again: the connection may be another one by now, whose end does not know us,
        and what it turned down then could not be distinguished from what was lost with the earlier one.
        """
        if now - self._heard_at > self._speak_s or (self.is_doubtful and now - self._greeted_at > self._speak_s):
            self.outbox.put(self._kind, self.greeting)
            self._greeted_at = now
        self._heard_at = self._spoke_at = now

    @property
    def is_unsaid(self) -> bool:
        """Whether the last greeting has still to leave, and with it everything behind it."""
        return self.outbox.holds(self._kind)

    def is_unwelcome(self, reason: str) -> bool:
        """Whether a DISCONNECT with this reason asks for a greeting that was not already sent.

        Everything sent before a greeting may earn its own "no session"; one greeting answers all.
        """
        return reason == NO_SESSION and self.state in _HEARD

    def is_overdue(self, now: float) -> bool:
        """Whether the gateway must be greeted again: no WELCOME within a heartbeat, or silence for three.

        An unanswered greeting is repeated, for it may have gone into a connection that was just breaking.
        """
        if self.state in _UNHEARD:
            return now >= self._greeted_at + self._speak_s
        if self.state is LinkState.CLOSED or now - self._heard_at <= MISSES * self._patience_s:
            return False
        if now - self._spoke_at > 2 * self._speak_s:
            # Our own pause is not the gateway's silence: it gets the time to answer what we say now.
            self._heard_at = now
            return False
        return True

    def is_beat_due(self, now: float, *, ahead: float = 0.0) -> bool:
        """Whether to say something, once each heartbeat while the link is up; `ahead` of one it may be early."""
        if self.state not in _HEARD or now < self._spoke_at + self._speak_s * (1 - ahead):
            return False
        self._spoke_at = now
        return True

    def wake_at(self) -> float:
        """Returns when `is_overdue` and `is_beat_due` are worth asking."""
        if self.state is LinkState.CLOSED:
            return float("inf")
        return (self._greeted_at if self.state in _UNHEARD else self._spoke_at) + self._speak_s


# Whether the gateway owes us signs of life.
_HEARD = (LinkState.UP, LinkState.LEAVING)
_UNHEARD = (LinkState.GREETING, LinkState.LEFT)
