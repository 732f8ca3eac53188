"""The dialling side's sockets: one DEALER for each gateway.

A worker's loop, a client's thread and a client's event loop drain and empty them the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import zmq

from zmqinfer.errors import ProtocolError
from zmqinfer.machine.outbox import Outbox
from zmqinfer.node import sockets
from zmqinfer.records import Kind, Record
from zmqinfer.wire import decode

__all__ = ["Dialler"]

OnMessage: TypeAlias = Callable[[int, Kind, list[Record], float], None]
OnBroken: TypeAlias = Callable[[int, str, float], None]

# Messages taken from one socket in a turn: each carries up to 256 records.
_MAX_DRAIN = 64


class Dialler:
    """DEALER sockets, numbered as the machine numbers its links."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], addresses: Sequence[str]) -> None:
        """Connects to every address; raises `ConfigError` for one that cannot be dialled."""
        self.sockets: list[zmq.Socket[bytes]] = []
        try:
            for address in addresses:
                self.sockets.append(sockets.dealer(context, address))
        except BaseException:
            self.close()
            raise

    def descriptors(self) -> list[int]:
        """Returns the edge-triggered descriptors: after one fires, drain until `is_readable` says no."""
        return [int(socket.get(zmq.FD)) for socket in self.sockets]

    def is_readable(self) -> bool:
        """Whether any socket has a message; asking also re-arms the descriptors."""
        readable = False
        for socket in self.sockets:  # all of them, not only the first that says yes
            readable |= sockets.is_readable(socket)
        return readable

    def drain(
        self, on_message: OnMessage, now: float, on_broken: OnBroken | None = None, signalled: Sequence[object] = ()
    ) -> bool:
        """Feeds what has arrived to the machine, a bounded number of messages from each gateway.

        Args:
            on_broken: told the number of a gateway whose message cannot be read, and why. Without it such a message
                is as if it had been lost: what it answered ends at its deadline.
            signalled: sockets that need not be asked first, for their descriptors have just fired.

        Returns:
            whether there may be more. If not, the descriptors are armed again.
        """
        is_readable = False
        for number, socket in enumerate(self.sockets):
            is_known = socket in signalled
            for _ in range(_MAX_DRAIN):
                if not is_known and not sockets.is_readable(socket):
                    break
                is_known = False
                message = sockets.receive(socket)
                if message is None:
                    break
                try:
                    kind, records = decode(*message)
                except ProtocolError as error:
                    if on_broken is not None:
                        on_broken(number, str(error), now)
                    continue
                on_message(number, kind, records, now)
            else:
                is_readable = True
        return is_readable

    def flush(self, dirty: list[Outbox], now: float) -> bool:
        """Empties the outboxes; True if a socket that is full or not connected left something."""
        batch = dirty.copy()
        dirty.clear()
        for outbox in batch:
            number = outbox.address
            assert isinstance(number, int)
            socket = self.sockets[number]
            for frames in outbox.messages(now):
                try:
                    sockets.send(socket, frames)
                except zmq.Again:
                    dirty.append(outbox)
                    break
        return bool(dirty)

    def close(self, linger_ms: int = sockets.LINGER_MS) -> None:
        """Closes the sockets; what they hold has so long to leave."""
        for socket in self.sockets:
            socket.close(linger_ms)
