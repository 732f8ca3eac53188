"""A gateway's turn: two ROUTERs around a GatewayMachine.

The workers' messages come first, for they free what the clients wait for.
"""

from __future__ import annotations

from typing import TypeAlias

from zmqinfer.errors import ProtocolError
from zmqinfer.loop.ports import FULL, SENT, Reporter, RouterPort
from zmqinfer.machine.gateway.clients import Clients
from zmqinfer.machine.gateway.machine import GatewayMachine
from zmqinfer.machine.gateway.workers import Workers
from zmqinfer.machine.outbox import Outbox
from zmqinfer.wire import decode

__all__ = ["GatewayLoop"]

Side: TypeAlias = Clients | Workers

# What one turn takes from one socket: what it makes of that should leave before it looks for more.
_MAX_DRAIN = 64
_MAX_RECORDS = 256
# A full socket tells nobody when it is no longer full, so what it did not take is tried again so soon.
_RETRY_S = 0.005


class GatewayLoop:
    """Turns a gateway.

    Attributes:
        records: how many came in this turn.
    """

    def __init__(self, machine: GatewayMachine, clients: RouterPort, workers: RouterPort, report: Reporter) -> None:
        self.records = 0
        self._machine = machine
        self._clients = clients
        self._workers = workers
        self._report = report
        self._is_drain_wanted = False
        self._due = machine.wake_at()
        # How long what the clients' socket holds may have waited while we were not there to take it.
        self._gap = 0.0

    def drain(self) -> None:
        """Has the next turn begin to leave; from any thread or signal handler."""
        self._is_drain_wanted = True

    def turn(self, now: float, away_s: float) -> float | None:
        """Does what there is to do.

        Args:
            away_s: for how long nobody looked, beyond what was waited for; what is found may be so old.

        Returns:
            when to come again if nothing is signalled before, or None.
        """
        machine = self._machine
        self.records = 0
        self._gap = max(self._gap, away_s)
        if self._workers.is_signalled:
            self._take(self._workers, machine.workers, now, 0.0)
        # A backlog takes several turns: until it is gone everything in it may be as old.
        if not self._clients.is_signalled or self._take(self._clients, machine.clients, now, self._gap):
            self._gap = 0.0
        self._look_who_closed(now)
        if machine.clients.door.cut or machine.workers.door.cut:
            self._cut_offenders()
        if self._is_drain_wanted and not machine.is_draining:
            machine.drain(now)
            self._report.info("draining", clients=len(machine.clients), pending=machine.ledger.pending)
        if self._due is not None and self._due <= now:
            if machine.workers.is_judging(now):
                self._take(self._workers, machine.workers, now, 0.0, self._workers.look())
            machine.on_timer(now)
        is_stuck = self.send(now)
        if machine.workers.events:
            for event, values in machine.workers.events:
                self._report.info(event, **values)
            machine.workers.events.clear()
        due = self._due = machine.wake_at()
        return now + _RETRY_S if is_stuck and (due is None or due > now + _RETRY_S) else due

    def part(self, now: float) -> None:
        """Does the last thing before the end: tells the workers."""
        self._machine.workers.part()
        self.send(now)

    def _take(self, port: RouterPort, side: Side, now: float, gap: float, most: int = _MAX_DRAIN) -> bool:
        """Takes what has come through a door, so many messages at most; False if there may be more."""
        unheard = side.door.unheard
        taken = 0
        for _ in range(most):
            message = port.receive()
            if message is None:
                self.records += taken
                return True
            peer, head, parts = message
            if peer in unheard:
                continue
            try:
                kind, records = decode(head, parts)
            except ProtocolError as error:
                side.on_offence(peer, str(error), now)
                continue
            side.on_message(peer, kind, records, now, gap)
            taken += len(records)
            if taken >= _MAX_RECORDS and most == _MAX_DRAIN:
                break
        self.records += taken
        return False

    def _look_who_closed(self, now: float) -> None:
        machine = self._machine
        if closed := self._workers.closed():
            for peer in closed:
                machine.workers.door.forget(peer)
            machine.workers.probe_all()
        for peer in self._clients.closed():
            machine.clients.door.forget(peer)
            machine.clients.probe(peer, now)

    def _cut_offenders(self) -> None:
        """Ends their connections; after a look at who has closed, for a descriptor may be an innocent's by then."""
        for port, side in ((self._clients, self._machine.clients), (self._workers, self._machine.workers)):
            for peer in side.door.cut:
                port.cut(peer)
            side.door.cut.clear()

    def send(self, now: float) -> bool:
        """Empties the outboxes; True if a full socket left something for a later turn."""
        workers, clients = self._machine.workers, self._machine.clients
        stuck: list[tuple[Outbox, list[Outbox]]] = []
        # Losing a peer fills other outboxes, so go on until there is nothing new.
        while workers.door.dirty or clients.door.dirty:
            for port, side in ((self._workers, workers), (self._clients, clients)):
                dirty = side.door.dirty
                if dirty:
                    batch = dirty.copy()
                    dirty.clear()
                    full = [outbox for outbox in batch if not _empty(port, outbox, side, now)]
                    stuck += [(outbox, dirty) for outbox in full if outbox.is_owed]
        for outbox, dirty in stuck:
            dirty.append(outbox)
        return bool(stuck)


def _empty(port: RouterPort, outbox: Outbox, side: Side, now: float) -> bool:
    """Sends what an outbox holds; False if a full socket left something."""
    address = outbox.address
    assert address is None or isinstance(address, bytes)
    for frames in outbox.messages(now):
        outcome = port.send(address or b"", frames)
        if outcome != SENT:
            if outcome == FULL:
                return False
            side.on_unreachable(address or b"", now)
            return True
    return True
