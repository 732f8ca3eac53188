"""ZeroMQ's sockets as the loops know them.

What is signalled is read without asking; any use of a socket may take its signal, so afterwards it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import zmq

from zmqinfer.errors import UsageError
from zmqinfer.loop import dialler
from zmqinfer.loop.dialler import Linked
from zmqinfer.loop.ports import FULL, GONE, SENT
from zmqinfer.node import sockets
from zmqinfer.node.descriptors import check_room
from zmqinfer.node.gate import Gate
from zmqinfer.node.report import Report
from zmqinfer.node.sockets import MORE, NOBLOCK
from zmqinfer.tensor import Buffer

__all__ = ["Dealer", "Dialler", "Router"]

# Beyond those that have spoken: so many may have come since.
_MORE_PEERS = 64


class _Port:
    """A socket of ZeroMQ's.

    Attributes:
        socket: it, of which `is_signalled` says that it may have a message and need not be asked.
    """

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self.is_signalled = False
        self._descriptor = int(socket.get(zmq.FD))

    def fileno(self) -> int:
        """Returns an edge-triggered descriptor: after it fires, receive until there is nothing."""
        return self._descriptor

    def on_signal(self) -> None:
        """Notes that there may be a message."""
        self.is_signalled = True


class Router(_Port):
    """A ROUTER that listens, with what is known of the connections behind it.

    Args:
        door: for whom it is, for people.
        left: the part of all descriptors that is left to others; see gate.py.

    Attributes:
        monitor: the socket's monitor.
        gate: lets connections in while there are descriptors for them.
        address: where it listens, with the real port.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        *,
        door: str,
        max_frame_bytes: int,
        left: float,
        report: Report,
    ) -> None:
        """Binds it; raises `ConfigError` if the address is taken or cannot be bound."""
        socket, self.monitor = sockets.router(context, address, max_frame_bytes)
        super().__init__(socket)
        _, listening = sockets.monitored(self.monitor)
        self.address = sockets.endpoint(self.socket)
        self.gate = Gate(door, listening, left, report)
        self._is_monitored = False
        self._report = report
        # Routing id to the connection's descriptor and far end, and back. Hints: a descriptor may be reused.
        self._connections: dict[bytes, tuple[int, sockets.FarEnd]] = {}
        self._peers: dict[int, bytes] = {}
        # Peers whose connections have closed without a word: their descriptors are another's, or nobody's.
        self._displaced: list[bytes] = []

    def receive(self) -> tuple[bytes, bytes, list[Buffer]] | None:
        """Returns who sent the next message, its head and its parts, or None."""
        socket = self.socket
        if self.is_signalled:
            self.is_signalled = False
        elif not sockets.is_readable(socket):
            return None
        try:
            peer = socket.recv(NOBLOCK)
        except zmq.Again:
            return None
        frame = socket.recv(NOBLOCK, copy=False)
        if peer not in self._connections:
            self._note(peer, frame)
        return peer, frame.bytes, sockets.rest(socket, frame) if frame.more else []

    def _note(self, peer: bytes, frame: zmq.Frame) -> None:
        """Remembers where a new peer's messages come from."""
        try:
            descriptor = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:  # it speaks ZMTP 1.0, or HTTP that looks like it, and so has no properties
            return
        end = sockets.far_end(descriptor)
        if end is None:  # closed already, and its monitor may have said so before we knew whose it was
            self._displaced.append(peer)
            return
        earlier = self._peers.get(descriptor)
        if earlier is not None:
            self._connections.pop(earlier, None)
            self._displaced.append(earlier)
        self._connections[peer] = descriptor, end
        self._peers[descriptor] = peer

    def look(self) -> int:
        """Returns after how many messages everybody had one: they are taken from the connections in turn."""
        return _MORE_PEERS + 2 * len(self._connections)

    def send(self, peer: bytes, frames: list[Buffer]) -> int:
        """Sends a message, and returns SENT, FULL or GONE."""
        try:
            sockets.send_frame(self.socket, peer, MORE)
        except zmq.Again:
            return FULL
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return GONE
        sockets.send(self.socket, frames)
        return SENT

    def on_monitored(self) -> None:
        """Notes that the monitor may have news."""
        self._is_monitored = True

    def closed(self) -> list[bytes]:
        """Returns the peers whose connections have closed since; empty for one that never said anything."""
        closed, self._displaced = self._displaced, []
        if self._is_monitored:
            self._is_monitored = False
            while sockets.is_readable(self.monitor):
                event, descriptor = sockets.monitored(self.monitor)
                if event == zmq.EVENT_ACCEPTED:
                    self.gate.on_accepted(descriptor)
                    continue
                peer = self._peers.pop(descriptor, b"")
                closed.append(peer)
                self._connections.pop(peer, None)
        return closed

    def cut(self, peer: bytes) -> None:
        """Ends a connection, which ROUTER itself cannot do."""
        descriptor, end = self._connections.get(peer, (-1, ("gone", 0)))
        done = descriptor >= 0 and sockets.drop(descriptor, end)
        where = f"{end[0]}:{end[1]}"
        self._report.warning("peer cut off after three broken messages", peer=where, closed=done)

    def close(self) -> None:
        """Stops listening, and to its monitor; the socket goes with its context."""
        self.gate.open()
        self.socket.disable_monitor()
        self.monitor.close(0)
        sockets.remove_path(self.address)


class Dealer(_Port):
    """A DEALER that dials one address; raises `ConfigError` for one that cannot be dialled."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        super().__init__(sockets.dealer(context, address))

    def receive(self) -> tuple[bytes, list[Buffer]] | None:
        """Returns the head and the parts of the next message, or None."""
        socket = self.socket
        if self.is_signalled:
            self.is_signalled = False
        elif not sockets.is_readable(socket):
            return None
        try:
            frame = socket.recv(NOBLOCK, copy=False)
        except zmq.Again:
            return None
        return frame.bytes, sockets.rest(socket, frame) if frame.more else []

    def is_readable(self) -> bool:
        """Whether there is a message; asking also re-arms the descriptor."""
        return sockets.is_readable(self.socket)

    def send(self, frames: list[Buffer]) -> int:
        """Sends a message, and returns SENT or FULL, which it also is without a connection."""
        try:
            sockets.send(self.socket, frames)
        except zmq.Again:
            return FULL
        return SENT

    def close(self, linger_ms: int = sockets.LINGER_MS) -> None:
        """Closes it; what it holds has so long to leave."""
        self.socket.close(linger_ms)


class Dialler(dialler.Dialler[Dealer]):
    """A client's or worker's DEALERs, one for each gateway, and the context that they live in."""

    def __init__(self, machine: Linked) -> None:
        """Dials all gateways; raises `ConfigError` for one that cannot be, or if there are too few descriptors."""
        self.context = sockets.new_context(len(machine.links))
        try:
            super().__init__(machine, partial(Dealer, self.context))
        except BaseException:
            self.context.destroy(linger=0)
            raise

    def dial(self, address: str) -> Callable[[float], None]:
        """Dials one more gateway, in any thread; returns what the loop's own has to do, which gets the time.

        So it is the caller who waits while the name of a host is looked up, which may take seconds.

        Raises:
            ConfigError: the address cannot be dialled, or there are too few file descriptors.
            UsageError: all has been closed.
        """
        if not self.is_open:
            raise UsageError("this node has ended, and dials nobody; make a new one")
        check_room()
        return partial(self.add, address, Dealer(self.context, address))

    def end(self) -> None:
        """Ends the context, which has to wait for what its closed sockets hold, and for those not closed yet."""
        self.context.term()
