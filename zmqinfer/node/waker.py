"""Lets another thread interrupt a poll."""

from __future__ import annotations

import contextlib
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
        with contextlib.suppress(BlockingIOError, OSError):
            self._writer.send(b"\0")

    def clear(self) -> None:
        """Makes the descriptor unreadable again."""
        with contextlib.suppress(BlockingIOError):
            while len(self._reader.recv(4_096)) == 4_096:
                pass

    def close(self) -> None:
        """Closes both ends."""
        self._reader.close()
        self._writer.close()
