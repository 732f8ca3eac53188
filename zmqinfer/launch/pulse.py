"""A sign of life from a process to the one that started it, through a pipe.

The child writes a byte twice a second, from a thread of its own. A model that holds the interpreter's lock keeps that
thread from running, and so does SIGSTOP: silence on the pipe is a process that hangs. The other way round the pipe
breaks when the parent is gone, however it ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable

__all__ = ["Ear", "Pulse"]

INTERVAL_S = 0.5
_ENOUGH = 65_536


class Pulse(threading.Thread):
    """The child's end.

    Args:
        descriptor: the pipe to write to, as the parent passed it on.
        on_alone: called when the parent is gone, from this thread.
    """

    def __init__(self, descriptor: int, on_alone: Callable[[], None]) -> None:
        super().__init__(name="pulse", daemon=True)
        os.set_inheritable(descriptor, False)
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._is_ready = False
        self._on_alone = on_alone

    def begin(self) -> None:
        """Says that this process does what it is for; to be called before it begins to, from any thread.

        No sign of life is expected before: to load a model may take long, and hold the lock.
        """
        self._is_ready = True
        self._beat()

    def _beat(self) -> None:
        # The pipe may be full, of a parent that has not read for hours, or broken, which `run` finds out.
        with contextlib.suppress(OSError):
            os.write(self._descriptor, b".")

    def run(self) -> None:
        """Beats until the parent is gone."""
        pipe = select.poll()
        # For nothing but its error, which a pipe without a reader has.
        pipe.register(self._descriptor, 0)
        while not pipe.poll(INTERVAL_S * 1000):
            if self._is_ready:
                self._beat()
        self._on_alone()


class Ear:
    """The parent's end.

    Attributes:
        is_ready: whether there was any sign of life.
        heard_at: when the last one was found, in the caller's time.
    """

    def __init__(self) -> None:
        self._read, self.descriptor = os.pipe()
        os.set_blocking(self._read, False)
        self.is_ready = False
        self.heard_at = 0.0

    def began(self) -> None:
        """Leaves the other end to the child, which has been started."""
        os.close(self.descriptor)

    def listen(self, now: float) -> None:
        """Takes what has come."""
        try:
            has_come = bool(os.read(self._read, _ENOUGH))
        except BlockingIOError:
            return
        if has_come:
            self.is_ready = True
            self.heard_at = now

    def forgive(self, now: float) -> None:
        """Begins to wait anew: it was the listener who was not there."""
        self.heard_at = now

    def silent_for(self, now: float) -> float:
        """Returns for how many seconds there was no sign of life; 0 before the first one."""
        return now - self.heard_at if self.is_ready else 0.0

    def close(self) -> None:
        """Closes this end; a child that is still there learns that it is alone."""
        os.close(self._read)
