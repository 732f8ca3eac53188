"""The dialling sockets of a worker's or client's process, drained and emptied as `node.dialler` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from zmqinfer.machine.outbox import Outbox
from zmqinfer.records import Kind, Record
from zmqinfer.sim.network import Network
from zmqinfer.sim.process import Process
from zmqinfer.wire import decode

__all__ = ["Dialler"]

OnMessage: TypeAlias = Callable[[int, Kind, list[Record], float], None]

_MAX_DRAIN = 64


class Dialler:
    """DEALER sockets, numbered as the machine numbers its links."""

    def __init__(self, network: Network, owner: Process, addresses: Sequence[str]) -> None:
        self._owner = owner
        self._dealers = [network.dial(owner, address) for address in addresses]

    def drain(self, on_message: OnMessage, now: float) -> tuple[int, bool]:
        """Feeds what has arrived to the machine; returns how many records that were, and whether there are more."""
        taken = 0
        is_readable = False
        for number, dealer in enumerate(self._dealers):
            for _ in range(_MAX_DRAIN):
                frames = dealer.receive()
                if frames is None:
                    break
                # Nobody but our own machines sends here: what they say is in order, or the run fails.
                kind, records = decode(bytes(frames[0]), frames[1:])
                on_message(number, kind, records, now)
                taken += len(records)
            is_readable |= bool(dealer.inbox)
        if is_readable:
            self._owner.rouse()
        return taken, is_readable

    def flush(self, dirty: list[Outbox], now: float, depart: float) -> bool:
        """Empties the outboxes; True if a socket that is full or not connected left something."""
        batch = dirty.copy()
        dirty.clear()
        for outbox in batch:
            assert isinstance(outbox.address, int)
            dealer = self._dealers[outbox.address]
            for frames in outbox.messages(now):
                if not dealer.send(frames, depart):
                    dirty.append(outbox)
                    break
        return bool(dirty)
