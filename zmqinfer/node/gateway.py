"""The gateway's loop: two ROUTER sockets around a GatewayMachine.

Each turn drains a bounded number of messages, the workers' first, for they free what the clients
wait for; then it feeds the machine's clock and sends what the machine has put into its outboxes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import zmq

from zmqinfer import __version__
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import ProtocolError
from zmqinfer.machine.gateway.clients import Clients
from zmqinfer.machine.gateway.machine import GatewayMachine
from zmqinfer.machine.gateway.workers import Workers
from zmqinfer.machine.outbox import Outbox
from zmqinfer.node import sockets
from zmqinfer.node.descriptors import limit
from zmqinfer.node.gate import Gate
from zmqinfer.node.poller import Poller
from zmqinfer.node.report import Report
from zmqinfer.node.waker import Waker, poll_ms
from zmqinfer.tensor import Buffer
from zmqinfer.wire import MAX_HEAD_BYTES, decode

__all__ = ["GatewayNode"]

# What one turn takes from one socket: what it makes of that should leave before it looks for more.
_MAX_DRAIN = 64
_MAX_RECORDS = 256
# A full socket tells nobody when it is no longer full, so what it did not take is tried again so soon.
_RETRY_S = 0.005
# As ints: the bit operations of pyzmq's enums cost 0.5 us each.
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_MONITORED = zmq.EVENT_LISTENING | zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
# Of the descriptors so many are left when clients, and when workers, are no longer let in.
_LEFT_BY_CLIENTS, _LEFT_BY_WORKERS = 1 / 4, 1 / 8
# What a gateway itself has open, and something for what its process may open besides.
_OWN_DESCRIPTORS = 32


@dataclass(slots=True)
class _Face:
    """One of the two sockets, with what is known of the connections behind it."""

    socket: zmq.Socket[bytes]
    monitor: zmq.Socket[bytes]
    listening: int
    gate: Gate = field(init=False)
    # Routing id to the connection's descriptor and far end, and back. Hints: a descriptor may be reused.
    connections: dict[bytes, tuple[int, sockets.FarEnd]] = field(default_factory=dict)
    peers: dict[int, bytes] = field(default_factory=dict)
    # Peers whose connections may have closed without a word: their descriptors were another's, or nobody's.
    displaced: list[bytes] = field(default_factory=list)

    def note(self, peer: bytes, frame: zmq.Frame) -> None:
        """Remembers where a new peer's messages come from."""
        try:
            descriptor = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:  # it speaks ZMTP 1.0, or HTTP that looks like it, and so has no properties
            return
        end = sockets.far_end(descriptor)
        if end is None:  # closed already, and its monitor may have said so before we knew whose it was
            self.displaced.append(peer)
            return
        earlier = self.peers.get(descriptor)
        if earlier is not None:
            self.connections.pop(earlier, None)
            self.displaced.append(earlier)
        self.connections[peer] = descriptor, end
        self.peers[descriptor] = peer


class GatewayNode:
    """One gateway process's or thread's worth of gateway."""

    def __init__(self, clients_address: str, workers_address: str, settings: GatewaySettings | None = None) -> None:
        """Binds both sockets; `clients_address` and `workers_address` then hold the real ports.

        Raises:
            ConfigError: an address is taken or cannot be bound.
        """
        self._context = sockets.new_context()
        try:
            settings = settings or GatewaySettings()
            self._clients = self._bind(clients_address, settings.max_body_bytes)
            self._workers = self._bind(workers_address, settings.max_body_bytes)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.clients_address = sockets.endpoint(self._clients.socket)
        self.workers_address = sockets.endpoint(self._workers.socket)
        self._report = Report("gateway", gateway=self.workers_address)
        self._clients.gate = Gate("clients", self._clients.listening, _LEFT_BY_CLIENTS, self._report)
        self._workers.gate = Gate("workers", self._workers.listening, _LEFT_BY_WORKERS, self._report)
        self._waker = Waker()
        self._woken = self._waker.fileno()
        self._is_stopping = self._is_drain_wanted = False
        # How long what the clients' socket holds may have waited while we were not there to take it.
        self._gap = 0.0
        self.machine = GatewayMachine(
            settings,
            session=os.urandom(16),
            version=__version__,
            pid=os.getpid(),
            addresses=(self.clients_address, self.workers_address),
            first_tag=int.from_bytes(os.urandom(7), "little") >> 8,
            now=time.monotonic(),
        )

    def _bind(self, address: str, max_body_bytes: int) -> _Face:
        # A backstop: admission refuses larger bodies with a sentence, up to twice the limit.
        socket = sockets.unbound_router(self._context, max(2 * max_body_bytes, MAX_HEAD_BYTES))
        monitor = socket.get_monitor_socket(_MONITORED)
        sockets.bind(socket, address)
        _, listening = sockets.monitored(monitor)
        return _Face(socket, monitor, listening)

    def drain(self) -> None:
        """Begins to leave: clients go elsewhere, then `run` returns; from any thread or signal handler."""
        self._is_drain_wanted = True
        self._waker.wake()

    def stop(self) -> None:
        """Ends `run` after its present turn; from any thread or signal handler."""
        self._is_stopping = True
        self._waker.wake()

    def run(self) -> None:
        """Serves until drained or stopped, then closes everything."""
        faces = (self._workers, self._clients)
        poller = Poller((face.socket for face in faces), [*(face.monitor for face in faces), self._woken])
        machine, clock = self.machine, time.monotonic
        self._report.info("gateway listens", clients=self.clients_address, workers=self.workers_address)
        wanted, room = machine.settings.max_clients, self._clients.gate.room() - _OWN_DESCRIPTORS
        if wanted > room:
            self._report.info("too few descriptors for max_clients", max_clients=wanted, room=room, limit=limit())
        due = machine.wake_at()
        ended_at = clock()
        try:
            while not (self._is_stopping or machine.is_drained(ended_at)):
                wait_ms = poll_ms(due, ended_at)
                ready = poller.poll(wait_ms)
                now = clock()
                # What the poll should have taken, it did wait for; beyond that we were not there.
                self._gap = max(self._gap, now - ended_at - wait_ms / 1e3)
                is_stuck = self._turn(ready, now, due)
                due = machine.wake_at()
                if is_stuck and (due is None or due > now + _RETRY_S):
                    due = now + _RETRY_S
                ended_at = clock()
            machine.workers.part()
            self._flush(clock())
        finally:
            self._close()

    def _turn(self, ready: Sequence[object], now: float, due: float | None) -> bool:
        machine = self.machine
        if self._workers.socket in ready:
            self._drain_workers(now, is_signalled=True)
        # A backlog takes several turns: until it is gone everything in it may be as old.
        if self._clients.socket not in ready or self._drain_clients(now):
            self._gap = 0.0
        has_offenders = machine.clients.door.cut or machine.workers.door.cut
        has_news = self._workers.monitor in ready or self._clients.monitor in ready
        if has_offenders or has_news or self._clients.displaced or self._workers.displaced:
            self._look_who_closed(now)
        if has_offenders:
            self._cut_offenders()
        for face in (self._workers, self._clients):
            face.gate.tend(now)
        if self._woken in ready:
            self._waker.clear()
        if self._is_drain_wanted and not machine.is_draining:
            machine.drain(now)
            self._report.info("draining", clients=len(machine.clients), pending=machine.ledger.pending)
        if due is not None and due <= now:
            if machine.workers.is_judging(now):
                # Messages are taken from the connections in turn: after so many everybody had one.
                self._drain_workers(now, _MAX_DRAIN + 2 * len(self._workers.connections))
            machine.on_timer(now)
        is_stuck = self._flush(now)
        if machine.workers.events:
            for event, values in machine.workers.events:
                self._report.info(event, **values)
            machine.workers.events.clear()
        return is_stuck

    def _receive(self, face: _Face, *, is_signalled: bool) -> tuple[bytes, bytes, list[Buffer]] | None:
        socket = face.socket
        if not is_signalled and not sockets.is_readable(socket):
            return None
        try:
            peer = socket.recv(_NOBLOCK)
        except zmq.Again:
            return None
        frame = socket.recv(_NOBLOCK, copy=False)
        if peer not in face.connections:
            face.note(peer, frame)
        return peer, frame.bytes, sockets.rest(socket, frame) if frame.more else []

    def _drain_workers(self, now: float, most: int = _MAX_DRAIN, *, is_signalled: bool = False) -> None:
        workers = self.machine.workers
        taken = 0
        for _ in range(most):
            message = self._receive(self._workers, is_signalled=is_signalled)
            is_signalled = False
            if message is None:
                return
            peer, head, parts = message
            if peer in workers.door.unheard:
                continue
            try:
                kind, records = decode(head, parts)
            except ProtocolError as error:
                workers.on_offence(peer, str(error), now)
                continue
            workers.on_message(peer, kind, records, now)
            taken += len(records)
            if taken >= _MAX_RECORDS and most == _MAX_DRAIN:
                return

    def _drain_clients(self, now: float) -> bool:
        """Takes what has come from clients; False if there may be more."""
        clients = self.machine.clients
        is_signalled = True
        taken = 0
        for _ in range(_MAX_DRAIN):
            message = self._receive(self._clients, is_signalled=is_signalled)
            is_signalled = False
            if message is None:
                return True
            peer, head, parts = message
            if peer in clients.door.unheard:
                continue
            try:
                kind, records = decode(head, parts)
            except ProtocolError as error:
                clients.on_offence(peer, str(error))
                continue
            clients.on_message(peer, kind, records, now, self._gap)
            taken += len(records)
            if taken >= _MAX_RECORDS:
                break
        return False

    def _closed(self, face: _Face) -> list[bytes]:
        """Reads the monitor; returns the peers whose connections seem to have closed."""
        closed, face.displaced = face.displaced, []
        while sockets.is_readable(face.monitor):
            event, descriptor = sockets.monitored(face.monitor)
            if event == zmq.EVENT_ACCEPTED:
                face.gate.on_accepted(descriptor)
                continue
            peer = face.peers.pop(descriptor, None)
            closed.append(peer or b"")
            if peer is not None:
                face.connections.pop(peer, None)
                self.machine.forget_peer(peer)
        return closed

    def _flush(self, now: float) -> bool:
        """Empties the outboxes; True if a full socket left something for a later turn."""
        workers, clients = self.machine.workers, self.machine.clients
        stuck: list[tuple[Outbox, list[Outbox]]] = []
        # Losing a peer fills other outboxes, so go on until there is nothing new.
        while workers.door.dirty or clients.door.dirty:
            for face, roster in ((self._workers, workers), (self._clients, clients)):
                dirty = roster.door.dirty
                if dirty:
                    batch = dirty.copy()
                    dirty.clear()
                    for outbox in batch:
                        is_empty = self._empty(face.socket, outbox, roster, now)
                        if not is_empty and outbox.is_owed:
                            stuck.append((outbox, dirty))
        for outbox, dirty in stuck:
            dirty.append(outbox)
        return bool(stuck)

    @staticmethod
    def _empty(socket: zmq.Socket[bytes], outbox: Outbox, roster: Clients | Workers, now: float) -> bool:
        address = outbox.address
        assert address is None or isinstance(address, bytes)
        for frames in outbox.messages(now):
            try:
                sockets.send_frame(socket, address or b"", _MORE)
            except zmq.Again:
                return False
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                roster.on_unreachable(address or b"", now)
                return True
            sockets.send(socket, frames)
        return True

    def _look_who_closed(self, now: float) -> None:
        if self._closed(self._workers):
            self.machine.workers.probe_all()
        for peer in self._closed(self._clients):
            self.machine.clients.probe(peer, now)

    def _cut_offenders(self) -> None:
        """Closes their connections; only after a look at the monitors, which tell first if one has closed by itself.

        Its descriptor may be an innocent's by then.
        """
        for face, door in (
            (self._clients, self.machine.clients.door),
            (self._workers, self.machine.workers.door),
        ):
            for peer in door.cut:
                descriptor, end = face.connections.get(peer, (-1, ("gone", 0)))
                done = descriptor >= 0 and sockets.drop(descriptor, end)
                where = f"{end[0]}:{end[1]}"
                self._report.warning("peer cut off after three broken messages", peer=where, closed=done)
            door.cut.clear()

    def _close(self) -> None:
        for face in (self._workers, self._clients):
            face.gate.open()
            face.socket.disable_monitor()
            face.monitor.close(0)
        for address in (self.clients_address, self.workers_address):
            sockets.remove_path(address)
        self._context.destroy(linger=sockets.LINGER_MS)
        self._waker.close()
