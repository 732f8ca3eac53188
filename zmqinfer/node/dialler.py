"""A client's or worker's DEALERs, one for each gateway."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from zmqinfer.loop import dialler
from zmqinfer.node import sockets
from zmqinfer.node.ports import Dealer

__all__ = ["Dialler"]


class Dialler(dialler.Dialler[Dealer]):
    """ZeroMQ's sockets, numbered as the machine numbers its links."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], addresses: Sequence[str]) -> None:
        """Connects to every address; raises `ConfigError` for one that cannot be dialled."""
        super().__init__()
        try:
            for number, address in enumerate(addresses):
                self.ports[number] = Dealer(context, address)
        except BaseException:
            self.close()
            raise

    def all_sockets(self) -> list[zmq.Socket[bytes]]:
        """Returns the sockets, for a poller."""
        return [port.socket for port in self.ports.values()]

    def descriptors(self) -> list[int]:
        """Returns the edge-triggered descriptors: after one fires, drain until `is_readable` says no."""
        return [int(port.socket.get(zmq.FD)) for port in self.ports.values()]

    def signal(self, ready: Sequence[object]) -> None:
        """Notes the sockets that a poller named: those need not be asked first."""
        for port in self.ports.values():
            port.is_signalled = port.socket in ready

    def close(self, linger_ms: int = sockets.LINGER_MS) -> None:
        """Closes the sockets; what they hold has so long to leave."""
        for port in self.ports.values():
            port.socket.close(linger_ms)
