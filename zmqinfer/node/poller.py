"""Waiting for ports, and for other threads that want something.

`zmq.Poller` asks each socket for its events before and after it waits, and hands all descriptors to the
kernel each time. Here the kernel knows them already, and only sockets that were used since are asked: a
message through a ROUTER costs its loop 21 us of CPU so, against 29 with `zmq.Poller` and the five entries
of a gateway (medians of four runs, the wake-up itself included).
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable

import zmq

from zmqinfer.node.ports import Dealer, Router

__all__ = ["Poller", "Waker"]

_READABLE = int(zmq.POLLIN)
# Linux reports each change once, as ZeroMQ signals. Elsewhere the signal is seen until the socket is asked.
_IS_LINUX = hasattr(select, "epoll")
_EDGE = select.EPOLLIN | select.EPOLLET if _IS_LINUX else select.POLLIN
_SECOND = 1e-3 if _IS_LINUX else 1
_LONGEST_MS = 1_000


class Waker:
    """A pair of connected sockets: poll on `fileno`, `wake` from any thread or signal handler."""

    __slots__ = ("_reader", "_writer")

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """Returns the descriptor that becomes readable."""
        return self._reader.fileno()

    def wake(self) -> None:
        """Makes the descriptor readable. Full means readable already; closed means nobody waits any more."""
        try:  # noqa: SIM105 - `contextlib.suppress` takes 0.6 us
            self._writer.send(b"\0")
        except OSError:
            pass

    def clear(self) -> None:
        """Makes the descriptor unreadable again."""
        try:
            while len(self._reader.recv(256)) == 256:
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Closes both ends."""
        self._reader.close()
        self._writer.close()


class Poller:
    """Waits until a port has something to read, or somebody wakes it.

    ZeroMQ's signal for what has arrived may be taken by any use of a socket, so ports are asked before each wait;
    their monitors are not used otherwise.
    """

    def __init__(self, ports: Iterable[Dealer | Router] = ()) -> None:
        self._kernel = select.epoll() if _IS_LINUX else select.poll()
        self._busy: list[tuple[zmq.Socket[bytes], int]] = []
        self._ports: dict[object, Dealer | Router] = {}
        self._on_signal: dict[int, Callable[[], object]] = {}
        self._waker = Waker()
        self.wake = self._waker.wake
        self._register(self._waker.fileno(), self._waker.clear, select.POLLIN)
        for port in ports:
            self.add(port)

    def _register(self, descriptor: int, on_signal: Callable[[], object], events: int) -> None:
        self._on_signal[descriptor] = on_signal
        self._kernel.register(descriptor, events)

    def add(self, port: Dealer | Router) -> None:
        """Waits for one more port."""
        self._busy.append((port.socket, _READABLE))
        self._ports[port.socket] = port
        self._register(port.fileno(), port.on_signal, _EDGE)
        if isinstance(port, Router):
            self._register(int(port.monitor.get(zmq.FD)), port.on_monitored, _EDGE)
            # ZeroMQ signals nothing for a socket of which nobody ever learned that it was empty.
            zmq.zmq_poll([(port.monitor, _READABLE)], 0)

    def remove(self, port: Dealer | Router) -> None:
        """Waits no longer for a port, which is about to be closed."""
        self._busy.remove((port.socket, _READABLE))
        del self._ports[port.socket], self._on_signal[port.fileno()]
        self._kernel.unregister(port.fileno())

    def wait(self, due: float | None, now: float) -> tuple[float, float]:
        """Waits until a port may have something to read, `wake` is called, or it is time.

        Args:
            due: when it is time; None: in a second, which is the longest wait.
            now: when the caller ended its turn.

        Returns:
            the time then, and for how long nobody looked beyond what was waited for, in seconds.
        """
        wait_ms = _LONGEST_MS
        if due is not None:
            wait_ms = 0 if due <= now else min(int((due - now) * 1e3) + 1, _LONGEST_MS)
        ready = zmq.zmq_poll(self._busy, 0)
        for readable, _ in ready:
            self._ports[readable].on_signal()
        for descriptor, _ in self._kernel.poll(0 if ready else wait_ms * _SECOND):
            self._on_signal[descriptor]()
        woken_at = time.monotonic()
        return woken_at, woken_at - now - wait_ms / 1e3

    def close(self) -> None:
        """Closes the waker: nobody wakes it any more."""
        self._waker.close()
