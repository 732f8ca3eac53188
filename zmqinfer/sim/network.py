"""A virtual network: ROUTER and DEALER sockets over connections that behave as TCP's do.

A connection is FIFO in both directions, whatever its delays. Nothing is lost on it until it ends; then all
is lost that had not arrived. A direction may be blocked: what is sent meanwhile arrives when it is free
again, unless an end has given the connection up before, which it does after 1.5 s without a sign of the
other (ZeroMQ's own heartbeats; a frozen process gives none). A DEALER dials again by itself, at intervals
that double from 50 ms to a second, and takes nothing while it has no connection (IMMEDIATE).
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Iterable
from random import Random

from zmqinfer.loop.ports import FULL, GONE, SENT
from zmqinfer.sim.process import Process
from zmqinfer.sim.timeline import Timeline
from zmqinfer.tensor import Buffer

__all__ = ["Dealer", "Network", "Router"]

Frames = list[Buffer]

BYTES_PER_S = 1e9
# Messages on their way in one direction, unread ones included, before a send finds the socket full.
PIPE_MESSAGES = 512
SILENCE_S = 1.5
PING_S = 0.5
REDIAL_S, REDIAL_MAX_S = 0.05, 1.0
HANDSHAKE_S = 3.0


class _Pipe:
    """One direction of a connection.

    Attributes:
        flying: messages that have a time of arrival.
        parked: messages that were sent, or would have arrived, while the direction was blocked, by their number.
        unread: messages that have arrived.
        silent_since: since when the receiver has had no sign of the sender.
    """

    __slots__ = ("arrives_at", "flying", "parked", "sent", "silent_since", "unread")

    def __init__(self) -> None:
        self.arrives_at = 0.0
        self.flying = self.unread = self.sent = 0
        self.parked: list[tuple[int, Frames]] = []
        self.silent_since: float | None = None

    def is_full(self) -> bool:
        return self.flying + self.unread + len(self.parked) >= PIPE_MESSAGES


class _Wire:
    """A connection from a DEALER to a ROUTER, which calls it `peer`."""

    __slots__ = ("dealer", "dealer_has_it", "down", "peer", "router", "router_has_it", "up")

    def __init__(self, dealer: Dealer, router: Router, peer: bytes) -> None:
        self.dealer = dealer
        self.router = router
        self.peer = peer
        self.up = _Pipe()
        self.down = _Pipe()
        self.dealer_has_it = self.router_has_it = True


class Dealer:
    """A dialling socket of a process."""

    def __init__(self, network: Network, owner: Process, address: str) -> None:
        self._network = network
        self.owner = owner
        self.address = address
        self.wire: _Wire | None = None
        self.is_open = True
        self.redial_s = REDIAL_S
        self.inbox: deque[tuple[_Pipe, Frames]] = deque()

    def send(self, frames: Frames) -> int:
        """Sends a message, and returns SENT, or FULL, which it also is without a connection."""
        wire = self.wire
        if wire is None or wire.up.is_full():
            return FULL
        self._network.transmit(wire, wire.up, frames, self.owner.departs_at())
        return SENT

    def is_readable(self) -> bool:
        """Whether a message has arrived."""
        return bool(self.inbox)

    def receive(self) -> tuple[bytes, Frames] | None:
        """Returns the head and the parts of the next message that has arrived."""
        if not self.inbox:
            return None
        pipe, (head, *parts) = self.inbox.popleft()
        pipe.unread -= 1
        return bytes(head), parts

    def close(self) -> None:
        """Ends it; what it sent arrives before the end of its connection does."""
        self.is_open = False
        if self.wire is not None:
            self._network.hang_up(self.wire)


class Router:
    """A listening socket of a process."""

    def __init__(self, network: Network, owner: Process, address: str) -> None:
        self._network = network
        self.owner = owner
        self.address = address
        self.wires: dict[bytes, _Wire] = {}
        self.inbox: deque[tuple[bytes, _Pipe, Frames]] = deque()
        # Peers whose connections were seen to close, as a socket monitor tells it.
        self.gone: list[bytes] = []

    @property
    def is_signalled(self) -> bool:
        """Whether a message has arrived."""
        return bool(self.inbox)

    def look(self) -> int:
        """Returns after how many messages all have been seen."""
        return len(self.inbox)

    def send(self, peer: bytes, frames: Frames) -> int:
        """Sends a message, and returns SENT, FULL, or GONE, where a ROUTER fails with EHOSTUNREACH."""
        wire = self.wires.get(peer)
        if wire is None:
            return GONE
        if wire.down.is_full():
            return FULL
        self._network.transmit(wire, wire.down, frames, self.owner.departs_at())
        return SENT

    def receive(self) -> tuple[bytes, bytes, Frames] | None:
        """Returns who sent the next message that has arrived, its head and its parts."""
        if not self.inbox:
            return None
        peer, pipe, (head, *parts) = self.inbox.popleft()
        pipe.unread -= 1
        return peer, bytes(head), parts

    def closed(self) -> list[bytes]:
        """Returns the peers whose connections have closed since."""
        gone, self.gone = self.gone, []
        return gone

    def cut(self, peer: bytes) -> None:
        """Ends a connection."""
        if peer in self.wires:
            self._network.cut(self.wires[peer])


class Network:
    """All connections, and which directions between two processes are blocked."""

    def __init__(
        self, timeline: Timeline, random: Random, trace: Callable[[str], None], latency_ms: tuple[float, float]
    ) -> None:
        """Makes a network without sockets.

        Args:
            trace: is told of each message that arrives.
            latency_ms: the least and the most from one process's send to the other's poll.
        """
        self._timeline = timeline
        self._least_s = latency_ms[0] / 1000
        self._jitter_s = latency_ms[1] / 1000 - self._least_s
        self._random = random
        self._trace = trace
        self._routers: dict[str, Router] = {}
        self._wires: dict[_Wire, None] = {}
        self._blocked: dict[tuple[str, str], int] = {}
        self._peers = 0

    # Sockets --------------------------------------------------------------------------------------

    def listen(self, owner: Process, address: str) -> Router:
        """Makes a ROUTER; whoever dials this address from now on gets to it."""
        assert address not in self._routers, address
        router = self._routers[address] = Router(self, owner, address)
        return router

    def dial(self, owner: Process, address: str) -> Dealer:
        """Makes a DEALER, which connects as soon as it can."""
        dealer = Dealer(self, owner, address)
        self._timeline.after(3 * self._least_s, lambda: self._try(dealer))
        return dealer

    def _try(self, dealer: Dealer) -> None:
        if not (dealer.owner.is_alive and dealer.is_open) or dealer.wire is not None:
            return
        router = self._routers.get(dealer.address)
        if dealer.owner.is_frozen:
            self._timeline.after(REDIAL_S, lambda: self._try(dealer))
        elif (
            router is None
            or self._is_blocked(dealer.owner, router.owner)
            or self._is_blocked(router.owner, dealer.owner)
        ):
            self._redial(dealer)
        elif router.owner.is_frozen:
            # The kernel accepts, and nobody shakes hands.
            self._timeline.after(self._random.uniform(0.1, HANDSHAKE_S), lambda: self._try(dealer))
        else:
            self._connect(dealer, router)

    def _redial(self, dealer: Dealer) -> None:
        self._timeline.after(dealer.redial_s * self._random.uniform(1.0, 1.5), lambda: self._try(dealer))
        dealer.redial_s = min(2 * dealer.redial_s, REDIAL_MAX_S)

    def _connect(self, dealer: Dealer, router: Router) -> None:
        self._peers += 1
        wire = _Wire(dealer, router, b"\0" + self._peers.to_bytes(4, "big"))
        router.wires[wire.peer] = wire
        self._wires[wire] = None
        dealer.wire = wire
        dealer.redial_s = REDIAL_S
        # What waited for a connection may leave.
        dealer.owner.rouse()

    # Messages -------------------------------------------------------------------------------------

    def transmit(self, wire: _Wire, pipe: _Pipe, frames: Frames, depart: float) -> None:
        """Puts a message on its way."""
        pipe.sent += 1
        self._fly(wire, pipe, pipe.sent, frames, depart)

    def _fly(self, wire: _Wire, pipe: _Pipe, number: int, frames: Frames, depart: float) -> None:
        if self._is_silent(wire, pipe):
            bisect.insort(pipe.parked, (number, frames))
            return
        delay_s = self._least_s + self._jitter_s * self._random.random() + sum(map(len, frames)) / BYTES_PER_S
        pipe.arrives_at = max(pipe.arrives_at, max(depart, self._timeline.now) + delay_s)
        pipe.flying += 1
        self._timeline.at(pipe.arrives_at, lambda: self._arrive(wire, pipe, number, frames))

    def _arrive(self, wire: _Wire, pipe: _Pipe, number: int, frames: Frames) -> None:
        pipe.flying -= 1
        if self._is_silent(wire, pipe):
            bisect.insort(pipe.parked, (number, frames))
            return
        self._trace(f"{self._ends(wire, pipe)[1].name} {sum(map(len, frames))}")
        if pipe is wire.up:
            if wire.router_has_it:
                pipe.unread += 1
                wire.router.inbox.append((wire.peer, pipe, frames))
                wire.router.owner.rouse()
        elif wire.dealer_has_it:
            pipe.unread += 1
            wire.dealer.inbox.append((pipe, frames))
            wire.dealer.owner.rouse()

    def _release(self, wire: _Wire, pipe: _Pipe) -> None:
        parked, pipe.parked = pipe.parked, []
        for number, frames in parked:
            self._fly(wire, pipe, number, frames, self._timeline.now)

    # Silence --------------------------------------------------------------------------------------

    def _ends(self, wire: _Wire, pipe: _Pipe) -> tuple[Process, Process]:
        """Returns who sends and who receives through a direction of a connection."""
        if pipe is wire.up:
            return wire.dealer.owner, wire.router.owner
        return wire.router.owner, wire.dealer.owner

    def _is_silent(self, wire: _Wire, pipe: _Pipe) -> bool:
        """Whether nothing gets through."""
        return bool(self._blocked) and self._is_blocked(*self._ends(wire, pipe))

    def _is_mute(self, wire: _Wire, pipe: _Pipe) -> bool:
        """Whether the receiver has no sign of the sender: nothing gets through, or it is frozen, or has gone."""
        sender, _ = self._ends(wire, pipe)
        has_gone = not (wire.dealer_has_it if pipe is wire.up else wire.router_has_it)
        return has_gone or sender.is_frozen or self._is_silent(wire, pipe)

    def _is_blocked(self, sender: Process, receiver: Process) -> bool:
        return (sender.name, receiver.name) in self._blocked

    def review(self, process: Process) -> None:
        """Looks anew at all connections of a process whose state, or whose paths, have changed."""
        for wire in [wire for wire in self._wires if process in (wire.dealer.owner, wire.router.owner)]:
            for pipe in (wire.up, wire.down):
                if not self._is_silent(wire, pipe):
                    self._release(wire, pipe)
                if not self._is_mute(wire, pipe):
                    pipe.silent_since = None
                elif pipe.silent_since is None:
                    self._begin_silence(wire, pipe)
            if wire.dealer_has_it != wire.router_has_it:
                self._reset_other(wire)

    def _begin_silence(self, wire: _Wire, pipe: _Pipe) -> None:
        since = pipe.silent_since = self._timeline.now
        self._timeline.after(SILENCE_S + PING_S * self._random.random(), lambda: self._end_silence(wire, pipe, since))

    def _end_silence(self, wire: _Wire, pipe: _Pipe, since: float) -> None:
        if pipe.silent_since != since or wire not in self._wires:
            return
        _, receiver = self._ends(wire, pipe)
        if receiver.is_frozen:
            # It finds out when it goes on, unless it finds a sign of life as well.
            self._timeline.after(PING_S, lambda: self._end_silence(wire, pipe, since))
            return
        self._drop(wire, is_dealer=receiver is wire.dealer.owner)

    # Ends -----------------------------------------------------------------------------------------

    def _drop(self, wire: _Wire, *, is_dealer: bool) -> None:
        """One end gives a connection up, or learns that the other has."""
        if is_dealer and wire.dealer_has_it:
            wire.dealer_has_it = False
            wire.dealer.wire = None
            if wire.dealer.owner.is_alive:
                self._redial(wire.dealer)
        elif not is_dealer and wire.router_has_it:
            wire.router_has_it = False
            wire.dealer.owner.on_lost()
            wire.router.wires.pop(wire.peer, None)
            wire.router.gone.append(wire.peer)
            wire.router.owner.rouse()
        if not (wire.dealer_has_it or wire.router_has_it):
            self._wires.pop(wire, None)
            return
        self._reset_other(wire)
        for pipe in (wire.up, wire.down):
            if pipe.silent_since is None and self._is_mute(wire, pipe):
                self._begin_silence(wire, pipe)

    def _reset_other(self, wire: _Wire) -> None:
        """Lets the close of one end reach the other, if the path is free."""
        is_dealer = wire.dealer_has_it
        gone, other = wire.router.owner, wire.dealer.owner
        pipe = wire.down
        if not is_dealer:
            gone, other, pipe = other, gone, wire.up
        if self._is_blocked(gone, other):
            return
        # Behind everything that left before it.
        at = max(pipe.arrives_at, self._timeline.now + self._least_s)
        self._timeline.at(at, lambda: self._drop(wire, is_dealer=is_dealer))

    def block(self, sender: Process, receiver: Process) -> None:
        """Lets nothing through from one process to another; may be asked for several times."""
        pair = (sender.name, receiver.name)
        self._blocked[pair] = self._blocked.get(pair, 0) + 1
        self.review(receiver)

    def unblock(self, sender: Process, receiver: Process) -> None:
        """Takes one `block` back."""
        pair = (sender.name, receiver.name)
        self._blocked[pair] -= 1
        if not self._blocked[pair]:
            del self._blocked[pair]
        self.review(receiver)
        self.review(sender)

    def cut(self, wire: _Wire) -> None:
        """Ends a connection in its middle, as a reset does."""
        self._drop(wire, is_dealer=True)
        self._drop(wire, is_dealer=False)

    def hang_up(self, wire: _Wire) -> None:
        """Ends a connection from the end that dialled it."""
        self._drop(wire, is_dealer=True)

    def wires(self) -> Iterable[_Wire]:
        """Returns all connections, oldest first."""
        return self._wires

    def forget(self, process: Process) -> None:
        """Closes all sockets of a process that ended."""
        for address, router in list(self._routers.items()):
            if router.owner is process:
                del self._routers[address]
        for wire in [wire for wire in self._wires if process in (wire.dealer.owner, wire.router.owner)]:
            self._drop(wire, is_dealer=wire.dealer.owner is process)
