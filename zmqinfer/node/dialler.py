"""A client's or worker's DEALERs, one for each gateway, and the context that they live in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from zmqinfer.errors import UsageError
from zmqinfer.loop import dialler
from zmqinfer.loop.dialler import Linked
from zmqinfer.node import sockets
from zmqinfer.node.descriptors import check_room
from zmqinfer.node.ports import Dealer

__all__ = ["Dialler"]


class Dialler(dialler.Dialler[Dealer]):
    """ZeroMQ's sockets, numbered as the machine numbers its links."""

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
