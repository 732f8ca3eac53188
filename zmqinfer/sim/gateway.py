"""A gateway's process: the loop of `node.gateway` around the same machine."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from zmqinfer.config import GatewaySettings
from zmqinfer.errors import ProtocolError
from zmqinfer.machine.gateway.clients import Clients
from zmqinfer.machine.gateway.machine import GatewayMachine
from zmqinfer.machine.gateway.workers import Workers
from zmqinfer.machine.outbox import Outbox
from zmqinfer.sim.network import Network, Router
from zmqinfer.sim.process import Process
from zmqinfer.sim.timeline import Timeline
from zmqinfer.wire import decode

__all__ = ["GatewayProcess"]

# As in `node.gateway`.
_MAX_DRAIN = 64
_MAX_RECORDS = 256
_RETRY_S = 0.005
# A turn, and a record in it, at the processor. Measured: PERFORMANCE.md, "Where the time goes".
_TURN_S, _RECORD_S = 60e-6, 8e-6


class GatewayProcess(Process):
    """One life of one gateway."""

    def __init__(
        self, name: str, timeline: Timeline, network: Network, random: Random, addresses: tuple[str, str],
        settings: GatewaySettings, kill: Callable[[Process], None],
    ) -> None:  # fmt: skip
        super().__init__(name, timeline)
        self.machine = GatewayMachine(
            settings,
            session=random.randbytes(16),
            version="simulated",
            pid=0,
            addresses=addresses,
            first_tag=random.getrandbits(48),
            now=timeline.now,
        )
        self._clients = network.listen(self, addresses[0])
        self._workers = network.listen(self, addresses[1])
        self._kill = kill
        self._is_stuck = self._is_drain_wanted = False
        self._gap = 0.0
        self._records = 0
        self.sleep()

    def drain(self) -> None:
        """Begins to leave, as after SIGTERM."""
        self._is_drain_wanted = True
        self.rouse()

    def turn(self, now: float, gap: float) -> float:
        """Drains both sockets, the workers' first, feeds the machine and empties its outboxes."""
        machine = self.machine
        self._records = 0
        self._drain_workers(now)
        self._gap = max(self._gap, gap)
        self._drain_clients(now, self._gap)
        if not self._clients.inbox:
            self._gap = 0.0
        if self._workers.closed:
            self._workers.closed.clear()
            machine.workers.probe_all()
        for peer in self._clients.closed:
            machine.clients.probe(peer, now)
        self._clients.closed.clear()
        if self._is_drain_wanted:
            machine.drain(now)
        if self.is_due:
            if machine.workers.is_judging(now):
                self._drain_workers(now, len(self._workers.inbox))
            machine.on_timer(now)
        took_s = _TURN_S + _RECORD_S * self._records
        self._is_stuck = self._flush(now, now + took_s)
        machine.workers.events.clear()
        machine.clients.door.cut.clear()
        machine.workers.door.cut.clear()
        if self._workers.inbox or self._clients.inbox:
            self.rouse()
        if machine.is_drained(now):
            machine.workers.part()
            self._flush(now, now + took_s)
            self.timeline.after(took_s, lambda: self._kill(self))
        return took_s

    def wake_at(self) -> float | None:
        """Returns when the machine wants to be asked, or a full socket tried."""
        due = self.machine.wake_at()
        if self._is_stuck and (due is None or due > self.timeline.now + _RETRY_S):
            return self.timeline.now + _RETRY_S
        return due

    def _drain_workers(self, now: float, most: int = _MAX_DRAIN) -> None:
        workers = self.machine.workers
        taken = 0
        for _ in range(most):
            message = self._workers.receive() if taken < _MAX_RECORDS or most != _MAX_DRAIN else None
            if message is None:
                break
            peer, frames = message
            if peer in workers.door.unheard:
                continue
            try:
                kind, records = decode(bytes(frames[0]), frames[1:])
            except ProtocolError as error:
                workers.on_offence(peer, str(error), now)
                continue
            workers.on_message(peer, kind, records, now)
            taken += len(records)
        self._records += taken

    def _drain_clients(self, now: float, gap: float) -> None:
        clients = self.machine.clients
        taken = 0
        for _ in range(_MAX_DRAIN):
            message = self._clients.receive() if taken < _MAX_RECORDS else None
            if message is None:
                break
            peer, frames = message
            if peer in clients.door.unheard:
                continue
            try:
                kind, records = decode(bytes(frames[0]), frames[1:])
            except ProtocolError as error:
                clients.on_offence(peer, str(error))
                continue
            clients.on_message(peer, kind, records, now, gap)
            taken += len(records)
        self._records += taken

    def _flush(self, now: float, depart: float) -> bool:
        workers, clients = self.machine.workers, self.machine.clients
        stuck: list[tuple[Outbox, list[Outbox]]] = []
        while workers.door.dirty or clients.door.dirty:
            for router, roster in ((self._workers, workers), (self._clients, clients)):
                dirty = roster.door.dirty
                batch = dirty.copy()
                dirty.clear()
                for outbox in batch:
                    is_empty = self._empty(router, outbox, roster, now, depart)
                    if not is_empty and outbox.is_owed:
                        stuck.append((outbox, dirty))
        for outbox, dirty in stuck:
            dirty.append(outbox)
        return bool(stuck)

    @staticmethod
    def _empty(router: Router, outbox: Outbox, roster: Clients | Workers, now: float, depart: float) -> bool:
        peer = outbox.address
        for frames in outbox.messages(now):
            assert isinstance(peer, bytes)
            if not router.is_reachable(peer):
                roster.on_unreachable(peer, now)
                return True
            if not router.send(peer, frames, depart):
                return False
        return True
