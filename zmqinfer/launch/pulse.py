"""What a process says to the one that started it, through a pipe: that it lives, and at last why it cannot.

The child writes a byte twice a second, from a thread of its own. A model that holds the interpreter's lock keeps that
thread from running, and so does SIGSTOP: silence on the pipe is a process that hangs. The other way round the pipe
breaks when the parent is gone, however it ended. A child that cannot start writes its sentence instead of printing it:
of five that say the same the parent prints one.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Self

__all__ = ["DESCRIPTOR", "Ear", "Pulse"]

# The variable of the environment that tells a child its end of the pipe.
DESCRIPTOR = "ZMQINFER_PULSE_FD"
INTERVAL_S = 0.5
# Beats of a child that does all that it is for, and of one that does not.
_BEAT, _PARTIAL_BEAT, _LAST_WORDS = b".", b"!", b"\0"
_ENOUGH = 65_536
# So much a pipe takes at once or not at all.
_MOST = 4_096


class Pulse:
    """The child's end.

    Args:
        descriptor: the pipe to write to, as the parent passed it on.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._beat = b""

    @classmethod
    def inherited(cls) -> Self | None:
        """Returns the pulse that our parent listens to, None if it does not; to be asked once."""
        descriptor = os.environ.pop(DESCRIPTOR, None)
        return None if descriptor is None else cls(int(descriptor))

    def start(self, on_alone: Callable[[], None]) -> None:
        """Begins to look whether the parent is still there; when it is gone calls `on_alone`, from another thread."""
        threading.Thread(target=self._run, args=(on_alone,), name="pulse", daemon=True).start()

    def begin(self, *, is_whole: bool = True) -> None:
        """Says that this process does what it is for; to be called before it begins to, from any thread.

        No sign of life is expected before: to load a model may take long, and hold the lock.

        Args:
            is_whole: whether it does all of that.
        """
        self._beat = _BEAT if is_whole else _PARTIAL_BEAT
        self._write(self._beat)

    def say(self, sentence: str) -> None:
        """Tells the parent why this process cannot go on."""
        self._write((_LAST_WORDS + sentence.encode(errors="replace"))[:_MOST])

    def _write(self, what: bytes) -> None:
        # The pipe may be full, of a parent that has not read for hours, or broken, which `_run` finds out.
        with contextlib.suppress(OSError):
            os.write(self._descriptor, what)

    def _run(self, on_alone: Callable[[], None]) -> None:
        pipe = select.poll()
        # For nothing but its error, which a pipe without a reader has.
        pipe.register(self._descriptor, 0)
        while not pipe.poll(INTERVAL_S * 1000):
            if self._beat:
                self._write(self._beat)
        on_alone()


class Ear:
    """The parent's end.

    Attributes:
        is_ready: whether there was any sign of life.
        is_whole: whether the child does all that it is for, as the last one says.
        heard_at: when the last one was found, in the caller's time.
        told: why the child cannot go on, as it says itself; empty if it did not.
    """

    def __init__(self) -> None:
        self._read, self.descriptor = os.pipe()
        os.set_blocking(self._read, False)
        self.is_ready = False
        self.is_whole = True
        self.heard_at = 0.0
        self.told = ""

    def began(self) -> None:
        """Leaves the other end to the child, which has been started."""
        os.close(self.descriptor)

    def listen(self, now: float) -> None:
        """Takes what has come."""
        try:
            beats, _, words = os.read(self._read, _ENOUGH).partition(_LAST_WORDS)
        except BlockingIOError:
            return
        self.told = words.decode(errors="replace") or self.told
        if beats:
            self.is_ready = True
            self.is_whole = _PARTIAL_BEAT not in beats
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
