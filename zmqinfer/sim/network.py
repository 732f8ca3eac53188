"""A virtual network: ROUTER and DEALER sockets over connections that behave as TCP's do.

A connection is FIFO in both directions, whatever its delays. Nothing is lost on it until it ends; then all
is lost that had not arrived. A direction may be blocked: what is sent meanwhile arrives when it is free
again, unless an end has given the connection up before, which it does after 1.5 s without a sign of the
other (ZeroMQ's own heartbeats; a frozen process gives none). A DEALER dials again by itself, at intervals
that double from 50 ms to a second, and takes nothing while it has no connection (IMMEDIATE).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from random import Random

from zmqinfer.loop.ports import FULL, GONE, SENT
from zmqinfer.sim.process import Process
from zmqinfer.sim.timeline import Timeline
from zmqinfer.tensor import Buffer

__all__ = ["Dealer", "Network", "Router", "Wire"]

Frames = list[Buffer]

BYTES_PER_S = 1e9
# Messages on their way in one direction, unread ones included, before a send finds the socket full.
PIPE_MESSAGES = 512
SILENCE_S = 1.5
PING_S = 0.5
REDIAL_S, REDIAL_MAX_S = 0.05, 1.0
HANDSHAKE_S = 3.0


@dataclass(slots=True, eq=False)
class _Pipe:
    """One direction of a connection.

    Attributes:
        flying: messages that have not arrived, and when each should.
        arrives_at: when the last of them should.
        unread: how many have arrived and were not read.
        silent_since: since when the receiver has had no sign of the sender.
    """

    sender: _Socket
    receiver: _Socket
    flying: deque[tuple[float, Frames]] = field(default_factory=deque)
    arrives_at: float = 0.0
    unread: int = 0
    silent_since: float | None = None


class Wire:
    """A connection from a DEALER to a ROUTER, which calls it `peer`; `ends` are those that have not given it up."""

    __slots__ = ("dealer", "down", "ends", "peer", "router", "up")

    def __init__(self, dealer: Dealer, router: Router, peer: bytes) -> None:
        self.dealer = dealer
        self.router = router
        self.peer = peer
        self.up = _Pipe(dealer, router)
        self.down = _Pipe(router, dealer)
        self.ends: list[_Socket] = [dealer, router]


class _Socket:
    """A socket of a process.

    Attributes:
        inbox: what has arrived: the peer that sent it, the pipe, and the frames.
    """

    def __init__(self, network: Network, owner: Process, address: str) -> None:
        self._network = network
        self.owner = owner
        self.address = address
        self.inbox: deque[tuple[bytes, _Pipe, Frames]] = deque()

    def _send(self, wire: Wire, pipe: _Pipe, frames: Frames) -> int:
        if len(pipe.flying) + pipe.unread >= PIPE_MESSAGES:
            return FULL
        self._network.transmit(wire, pipe, frames, self.owner.departs_at())
        return SENT

    def _receive(self) -> tuple[bytes, bytes, Frames] | None:
        if not self.inbox:
            return None
        peer, pipe, (head, *parts) = self.inbox.popleft()
        pipe.unread -= 1
        return peer, bytes(head), parts

    def on_dropped(self, wire: Wire) -> None:
        """Notes that it has a connection no longer."""
        raise NotImplementedError


class Dealer(_Socket):
    """A dialling socket."""

    wire: Wire | None = None
    is_open = True
    redial_s = REDIAL_S

    def send(self, frames: Frames) -> int:
        """Sends a message, and returns SENT, or FULL, which it also is without a connection."""
        return FULL if self.wire is None else self._send(self.wire, self.wire.up, frames)

    def is_readable(self) -> bool:
        """Whether a message has arrived."""
        return bool(self.inbox)

    def receive(self) -> tuple[bytes, Frames] | None:
        """Returns the head and the parts of the next message that has arrived."""
        message = self._receive()
        return None if message is None else message[1:]

    def close(self) -> None:
        """Ends it; what it sent arrives before the end of its connection does."""
        self.is_open = False
        if self.wire is not None:
            self._network.drop(self.wire, self)

    def on_dropped(self, _wire: Wire) -> None:
        """Dials anew."""
        self.wire = None
        if self.owner.is_alive:
            self._network.redial(self)


class Router(_Socket):
    """A listening socket."""

    def __init__(self, network: Network, owner: Process, address: str) -> None:
        super().__init__(network, owner, address)
        self.wires: dict[bytes, Wire] = {}
        # Peers whose connections were seen to close, as a socket monitor reports it.
        self._gone: list[bytes] = []

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
        return GONE if wire is None else self._send(wire, wire.down, frames)

    def receive(self) -> tuple[bytes, bytes, Frames] | None:
        """Returns who sent the next message that has arrived, its head and its parts."""
        return self._receive()

    def closed(self) -> list[bytes]:
        """Returns the peers whose connections have closed since."""
        gone, self._gone = self._gone, []
        return gone

    def cut(self, peer: bytes) -> None:
        """Ends a connection."""
        if peer in self.wires:
            self._network.cut(self.wires[peer])

    def on_dropped(self, wire: Wire) -> None:
        """Reports it to both processes."""
        wire.dealer.owner.on_lost()
        self.wires.pop(wire.peer, None)
        self._gone.append(wire.peer)
        self.owner.rouse()


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
        self.timeline = timeline
        self._least_s = latency_ms[0] / 1000
        self._jitter_s = latency_ms[1] / 1000 - self._least_s
        self._random = random
        self._trace = trace
        self._routers: dict[str, Router] = {}
        self._wires: dict[Wire, None] = {}
        self._blocked: Counter[tuple[str, str]] = Counter()
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
        self.timeline.after(3 * self._least_s, lambda: self._try(dealer))
        return dealer

    def _try(self, dealer: Dealer) -> None:
        if not (dealer.owner.is_alive and dealer.is_open) or dealer.wire is not None:
            return
        router = self._routers.get(dealer.address)
        if dealer.owner.is_frozen:
            self.timeline.after(REDIAL_S, lambda: self._try(dealer))
        elif router is None or self._is_blocked(dealer, router) or self._is_blocked(router, dealer):
            self.redial(dealer)
        elif router.owner.is_frozen:
            # The kernel accepts, and nobody shakes hands.
            self.timeline.after(self._random.uniform(0.1, HANDSHAKE_S), lambda: self._try(dealer))
        else:
            self._connect(dealer, router)

    def redial(self, dealer: Dealer) -> None:
        """Lets a DEALER try again after a while."""
        self.timeline.after(dealer.redial_s * self._random.uniform(1.0, 1.5), lambda: self._try(dealer))
        dealer.redial_s = min(2 * dealer.redial_s, REDIAL_MAX_S)

    def _connect(self, dealer: Dealer, router: Router) -> None:
        self._peers += 1
        wire = Wire(dealer, router, b"\0" + self._peers.to_bytes(4, "big"))
        router.wires[wire.peer] = dealer.wire = wire
        self._wires[wire] = None
        dealer.redial_s = REDIAL_S
        # What waited for a connection may leave.
        dealer.owner.rouse()

    # Messages -------------------------------------------------------------------------------------

    def transmit(self, wire: Wire, pipe: _Pipe, frames: Frames, depart: float) -> None:
        """Puts a message on its way."""
        delay_s = self._least_s + self._jitter_s * self._random.random() + sum(map(len, frames)) / BYTES_PER_S
        pipe.arrives_at = max(pipe.arrives_at, depart + delay_s)
        pipe.flying.append((pipe.arrives_at, frames))
        self.timeline.at(pipe.arrives_at, lambda: self._arrive(wire, pipe))

    def _arrive(self, wire: Wire, pipe: _Pipe) -> None:
        """Delivers what should have arrived, unless nothing gets through."""
        receiver, flying = pipe.receiver, pipe.flying
        while flying and flying[0][0] <= self.timeline.now and not self._is_blocked(pipe.sender, receiver):
            _, frames = flying.popleft()
            self._trace(f"{receiver.owner.name} {sum(map(len, frames))}")
            if receiver in wire.ends:
                pipe.unread += 1
                receiver.inbox.append((wire.peer, pipe, frames))
                receiver.owner.rouse()

    # Silence --------------------------------------------------------------------------------------

    def _is_blocked(self, sender: _Socket, receiver: _Socket) -> bool:
        """Whether nothing gets through."""
        return bool(self._blocked) and (sender.owner.name, receiver.owner.name) in self._blocked

    def review(self, process: Process) -> None:
        """Looks anew at all connections of a process whose state, or whose paths, have changed."""
        for wire in self._wires_of(process):
            for pipe in (wire.up, wire.down):
                if pipe.flying and pipe.flying[0][0] <= self.timeline.now:
                    pipe.arrives_at = max(pipe.arrives_at, self.timeline.now + self._least_s)
                    self.timeline.after(self._least_s, partial(self._arrive, wire, pipe))
            self._watch(wire)

    def _wires_of(self, process: Process) -> list[Wire]:
        return [wire for wire in self._wires if process in (wire.dealer.owner, wire.router.owner)]

    def _watch(self, wire: Wire) -> None:
        """Lets each end notice whether it hears the other, and whether that has closed the connection."""
        if len(wire.ends) == 1:
            self._reset_other(wire)
        for pipe in (wire.up, wire.down):
            sender = pipe.sender
            is_mute = sender not in wire.ends or sender.owner.is_frozen or self._is_blocked(sender, pipe.receiver)
            if not is_mute:
                pipe.silent_since = None
            elif pipe.silent_since is None:
                since = pipe.silent_since = self.timeline.now
                delay_s = SILENCE_S + PING_S * self._random.random()
                self.timeline.after(delay_s, partial(self._end_silence, wire, pipe, since))

    def _end_silence(self, wire: Wire, pipe: _Pipe, since: float) -> None:
        if pipe.silent_since != since or wire not in self._wires:
            return
        if pipe.receiver.owner.is_frozen:
            # It finds out when it goes on, unless it finds a sign of life as well.
            self.timeline.after(PING_S, lambda: self._end_silence(wire, pipe, since))
            return
        self.drop(wire, pipe.receiver)

    # Ends -----------------------------------------------------------------------------------------

    def drop(self, wire: Wire, end: _Socket) -> None:
        """Lets one end give a connection up, or learn that the other has."""
        if end in wire.ends:
            wire.ends.remove(end)
            end.on_dropped(wire)
        if wire.ends:
            self._watch(wire)
        else:
            self._wires.pop(wire, None)

    def _reset_other(self, wire: Wire) -> None:
        """Lets the close of one end reach the other, if the path is free."""
        (other,) = wire.ends
        pipe = wire.down if other is wire.dealer else wire.up
        if not self._is_blocked(pipe.sender, other):
            # It comes behind everything that left before it.
            at = max(pipe.arrives_at, self.timeline.now + self._least_s)
            self.timeline.at(at, lambda: self.drop(wire, other))

    def block(self, sender: Process, receiver: Process) -> None:
        """Lets nothing through from one process to another; may be asked for several times."""
        self._blocked[sender.name, receiver.name] += 1
        self.review(receiver)

    def unblock(self, sender: Process, receiver: Process) -> None:
        """Takes one `block` back."""
        pair = (sender.name, receiver.name)
        self._blocked[pair] -= 1
        if not self._blocked[pair]:
            del self._blocked[pair]
        self.review(receiver)
        self.review(sender)

    def cut(self, wire: Wire) -> None:
        """Ends a connection in its middle, as a reset does."""
        self.drop(wire, wire.dealer)
        self.drop(wire, wire.router)

    def wires(self) -> Iterable[Wire]:
        """Returns all connections, oldest first."""
        return self._wires

    def forget(self, process: Process) -> None:
        """Closes all sockets of a process that ended."""
        self._routers = {at: router for at, router in self._routers.items() if router.owner is not process}
        for wire in self._wires_of(process):
            self.drop(wire, wire.dealer if wire.dealer.owner is process else wire.router)
