"""How another thread interrupts a poll."""

from __future__ import annotations

import socket

__all__ = ["Waker"]


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
