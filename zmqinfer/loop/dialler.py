"""The dialling side's sockets: one for each gateway, drained and emptied the same way by clients and workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

from zmqinfer.errors import ProtocolError
from zmqinfer.loop.ports import SENT, DealerPort
from zmqinfer.machine.outbox import Outbox
from zmqinfer.records import Kind, Record
from zmqinfer.wire import decode

__all__ = ["Dialler"]

OnMessage: TypeAlias = Callable[[int, Kind, list[Record], float], None]
OnBroken: TypeAlias = Callable[[int, str, float], None]
P = TypeVar("P", bound=DealerPort)

# Messages taken from one socket in a turn: each carries up to 256 records.
_MAX_DRAIN = 64


class Dialler(Generic[P]):
    """Ports to gateways, numbered as the machine numbers its links.

    Attributes:
        ports: by their numbers.
        records: how many came in the last `drain`.
    """

    def __init__(self) -> None:
        self.ports: dict[int, P] = {}
        self.records = 0

    def is_readable(self) -> bool:
        """Whether any port has a message; asking also re-arms ZeroMQ's descriptors."""
        readable = False
        for port in self.ports.values():  # all of them, not only the first that says yes
            readable |= port.is_readable()
        return readable

    def drain(self, on_message: OnMessage, now: float, on_broken: OnBroken | None = None) -> bool:
        """Feeds what has arrived to the machine, a bounded number of messages from each gateway.

        Args:
            on_broken: told the number of a gateway whose message cannot be read, and why. Without it such a message
                is as if it had been lost: what it answered ends at its deadline.

        Returns:
            whether there may be more. If not, ZeroMQ's descriptors are armed again.
        """
        self.records = 0
        has_more = False
        for number, port in list(self.ports.items()):
            for _ in range(_MAX_DRAIN):
                message = port.receive()
                if message is None:
                    break
                try:
                    kind, records = decode(*message)
                except ProtocolError as error:
                    if on_broken is not None:
                        on_broken(number, str(error), now)
                    continue
                self.records += len(records)
                on_message(number, kind, records, now)
            else:
                has_more = True
        return has_more

    def flush(self, dirty: list[Outbox], now: float) -> bool:
        """Empties the outboxes; True if a socket that is full or not connected left something."""
        batch = dirty.copy()
        dirty.clear()
        for outbox in batch:
            assert isinstance(outbox.address, int)
            port = self.ports.get(outbox.address)
            if port is None:  # its gateway was given up
                continue
            for frames in outbox.messages(now):
                if port.send(frames) != SENT:
                    dirty.append(outbox)
                    break
        return bool(dirty)
