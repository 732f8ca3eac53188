"""What both clients share: the machine, its sockets, and the loop between them."""

from __future__ import annotations

import os
import time
import warnings
import weakref
from collections.abc import Iterable, Mapping

import zmq

from zmqinfer import __version__
from zmqinfer.config import ClientSettings
from zmqinfer.errors import Cancelled, Executed, UsageError
from zmqinfer.loop.client import ClientLoop
from zmqinfer.machine.client.call import Body, CallOptions, SharedBody
from zmqinfer.machine.client.machine import ClientMachine
from zmqinfer.node.addresses import addresses_of
from zmqinfer.node.ports import Dealer, Dialler
from zmqinfer.node.shared import SHARED_ABOVE_BYTES, SharedMemory, host_token
from zmqinfer.tensor import payload_bytes

__all__ = ["DEFAULTS", "NOT_COPIED", "UNCLOSED", "Connection"]

NOT_COPIED = "a client has sockets of its own and cannot be copied or sent to another process; make one there"
UNCLOSED = "a zmqinfer client was never closed; use it in `with`, or close it"

# The keyword defaults of both clients.
DEFAULTS = ClientSettings()


class Connection:
    """One client's machine and sockets.

    Attributes:
        is_usable: whether `check_open` would let a caller pass.
        plain: the options of a call of which nothing was said.
    """

    def __init__(self, endpoints: str | Iterable[str], **words: float) -> None:
        """Begins to dial; `words` are the `ClientSettings`."""
        addresses = addresses_of(endpoints)
        settings = ClientSettings(**words)  # type: ignore[arg-type]
        self.is_open = self.is_usable = True
        self.is_forked = False
        self.plain = CallOptions(settings.deadline_s)
        session = os.urandom(16)
        host = host_token() if settings.shared_memory_mb else None
        self.machine = ClientMachine(
            settings,
            session=session,
            id_prefix=os.urandom(8),
            agent=f"zmqinfer/{__version__} pid {os.getpid()}",
            gateways=addresses,
            now=time.monotonic(),
            host=host,
        )
        self.dialler = Dialler(self.machine)
        self._memory = None if host is None else SharedMemory(session, settings.shared_memory_mb * 2**20)
        self.loop = ClientLoop(self.machine, self.dialler, self._memory.free if self._memory else lambda _: None)
        _OPEN.add(self)
        # Not the dialler, which leads to those who wait, and they to this connection.
        context, ports = self.dialler.context, self.dialler.ports
        self._finalizer = weakref.finalize(self, _let_go, context, ports, self._memory, os.getpid())
        self._finalizer.atexit = False

    def check_open(self) -> None:
        """Raises `UsageError` in a forked child, whose sends would vanish, and after `close`."""
        if self.is_forked:
            raise UsageError("this client was made before a fork; make a new one in the child process")
        if not self.is_open:
            raise UsageError("this client is closed; make a new one")

    def check_goes_on(self) -> None:
        """Raises as `check_open` does, but `Cancelled` after `close`: for who was in the middle of sending."""
        if not self.is_open and not self.is_forked:
            raise Cancelled("the client was closed, before this was sent", executed=Executed.NO)
        self.check_open()

    def shut(self) -> None:
        """Lets no more callers pass."""
        self.is_open = self.is_usable = False

    def close(self) -> None:
        """Closes the sockets. In a forked child they belong to the parent and are left alone."""
        self.shut()
        self._finalizer.detach()
        if not self.is_forked:
            if self._memory is not None:
                self._memory.close()
            self.dialler.close()
            self.dialler.end()

    def share(self, model: str, version: int | None, body: Body) -> Body:
        """Lays a body that is large enough into shared memory, if all workers of the model can read it there."""
        layout, payload = body
        if self._memory is None or not isinstance(payload, list) or payload_bytes(payload) < SHARED_ABOVE_BYTES:
            return body
        card = self.machine.codec.card(model, version)
        place = self._memory.lay(payload) if card is not None and card[3] else None
        return layout, payload if place is None else SharedBody(place, self._memory.parts(place))

    def own(self, model: str, version: int | None, body: Body) -> Body:
        """Makes a large body independent of its caller's arrays: in shared memory, else by a copy."""
        layout, payload = self.share(model, version, body)
        if isinstance(payload, list):
            payload = [bytes(part) for part in payload]
        return layout, payload

    def give_back(self, bodies: Iterable[object]) -> None:
        """Gives back where bodies lie that will not be submitted."""
        for body in bodies:
            if self._memory is not None and isinstance(body, tuple) and isinstance(body[1], SharedBody):
                self._memory.free(body[1].place)


def _let_go(
    context: zmq.Context[zmq.Socket[bytes]], ports: Mapping[int, Dealer], memory: SharedMemory | None, owner: int
) -> None:
    """Closes what a client leaves that nobody closed.

    It is kept alive for this: of a context and its sockets that are collected together the context may come first,
    and then waits for ever for sockets that it no longer knows.
    """
    if os.getpid() != owner:  # a copy in a forked child; the sockets are the parent's
        return
    if memory is not None:
        memory.close()
    # Whoever collects shall not wait for what was to leave.
    for port in ports.values():
        port.close(0)
    context.destroy(linger=0)
    # Last, for where warnings are errors it raises.
    warnings.warn(UNCLOSED, ResourceWarning, stacklevel=2)


_OPEN: weakref.WeakSet[Connection] = weakref.WeakSet()


def _after_fork() -> None:
    for connection in list(_OPEN):
        connection.is_forked, connection.is_usable = True, False


os.register_at_fork(after_in_child=_after_fork)
