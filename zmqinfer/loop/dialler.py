"""The dialling side's sockets: one for each gateway, drained and emptied the same way by clients and workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

from zmqinfer.errors import ProtocolError
from zmqinfer.loop.ports import SENT, DealerPort
from zmqinfer.machine.client.machine import ClientMachine
from zmqinfer.machine.worker.machine import WorkerMachine
from zmqinfer.records import Kind, Record
from zmqinfer.wire import decode

__all__ = ["Dialler", "Linked"]

OnMessage: TypeAlias = Callable[[int, Kind, list[Record], float], None]
OnBroken: TypeAlias = Callable[[int, str, float], None]
Linked: TypeAlias = ClientMachine | WorkerMachine
P = TypeVar("P", bound=DealerPort)

# Messages taken from one socket in a turn: each carries up to 256 records.
_MAX_DRAIN = 64


class Dialler(Generic[P]):
    """Ports to gateways, numbered as the machine numbers its links.

    Args:
        dial: makes a port to an address.

    Attributes:
        ports: by their numbers.
        is_open: until all were closed.
        records: how many came in the last `drain`.
    """

    def __init__(self, machine: Linked, dial: Callable[[str], P]) -> None:
        """Dials every gateway of the machine; what `dial` raises closes those that were dialled before."""
        self.ports: dict[int, P] = {}
        self.records = 0
        self._machine = machine
        self.is_open = True
        # Ports that the shell does not watch yet, and those that it has still to close.
        self._opened: list[P] = []
        self._left: list[P] = []
        # To gateways that came back before they were left: a gateway has one session of a node at a time.
        self._awaited: dict[str, P] = {}
        try:
            for number, link in machine.links.items():
                self._note(number, dial(link.address))
        except BaseException:
            self.close()
            raise

    # Gateways that come and go -----------------------------------------------------------------------

    def add(self, address: str, port: P, now: float) -> None:
        """Begins to use one more gateway through a port that was dialled; closes that if it is of no use."""
        if not self.is_open or address in self._awaited or address in self.addresses():
            port.close()
        elif any(link.address == address for link in self._machine.links.values()):
            self._awaited[address] = port
        else:
            self._note(self._machine.add_link(address, now), port)

    def _note(self, number: int, port: P) -> None:
        self.ports[number] = port
        self._opened.append(port)

    def remove(self, address: str, now: float) -> None:
        """Begins to leave a gateway: its port is closed when the machine has nothing more to say to it."""
        if port := self._awaited.pop(address, None):
            port.close()
        for number, link in [*self._machine.links.items()] if self.is_open else ():
            if link.address == address and link.leave is None:
                self._machine.remove_link(number, now)

    def addresses(self) -> list[str]:
        """Returns those of the gateways that are not to be left."""
        return [link.address for link in self._machine.links.values() if link.leave is None]

    def settle(self, watch: Callable[[P], object], unwatch: Callable[[P], object]) -> None:
        """Has the shell watch the ports that are new, and closes those of gateways that were left."""
        while self._opened:
            watch(self._opened.pop())
        while self._left:
            port = self._left.pop()
            unwatch(port)
            port.close()

    def close(self) -> None:
        """Closes all ports; what they hold has a while to leave."""
        self.is_open = False
        for port in (*self.ports.values(), *self._left, *self._awaited.values()):
            port.close()

    # Messages ----------------------------------------------------------------------------------------

    def is_readable(self) -> bool:
        """Whether any port has a message; asking also re-arms ZeroMQ's descriptors."""
        readable = False
        for port in self.ports.values():  # all of them, not only the first that says yes
            readable |= port.is_readable()
        return readable

    def drain(self, on_message: OnMessage, now: float, on_broken: OnBroken | None = None) -> bool:
        """Feeds what has arrived to the machine, a bounded number of messages from each gateway.

        Args:
            on_broken: gets the number of a gateway whose message cannot be read, and why. Without it such a message
                is as if it had been lost: what it answered ends at its deadline.

        Returns:
            whether there may be more. If not, ZeroMQ's descriptors are armed again.
        """
        self.records = 0
        has_more = False
        for number, port in self.ports.items():
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

    def flush(self, now: float) -> bool:
        """Empties the outboxes; True if a socket that is full or not connected left something."""
        dirty = self._machine.dirty
        batch = dirty.copy()
        dirty.clear()
        for outbox in batch:
            assert isinstance(outbox.address, int)
            port = self.ports.get(outbox.address)
            if port is None:  # its gateway was left
                continue
            for frames in outbox.messages(now):
                if port.send(frames) != SENT:
                    dirty.append(outbox)
                    break
        left = self._machine.left
        if left:
            self._left += [self.ports.pop(number) for number in left]
            left.clear()
            awaited, self._awaited = self._awaited, {}
            for address, port in awaited.items():
                self.add(address, port, now)
        return bool(dirty)
