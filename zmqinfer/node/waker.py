"""How long a loop may poll, and how another thread interrupts it."""

from __future__ import annotations

import socket

__all__ = ["Waker", "poll_ms"]

_LONGEST_MS = 1_000


def poll_ms(due: float | None, now: float) -> int:
    """Returns how long to poll until `due`: not at all if that is past, else whole milliseconds, rounded up."""
    if due is None:
        return _LONGEST_MS
    return 0 if due <= now else min(int((due - now) * 1e3) + 1, _LONGEST_MS)


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
