"""Two threads for one loop: who has the duty turns it, the other one stands by.

A thread that hands a short batch to another thread pays more for that than for the batch, so the
loop runs such batches itself. Should one turn out long, the loop must not be silent meanwhile: the
thread in the model then has only offered its duty, the one that stands by takes it, and the first
stands by when it comes back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Crew", "RelievedError"]

# How long a thread must be away before it may be relieved.
_AWAY_S = 0.050


class RelievedError(Exception):
    """The other thread has the duty now; whoever catches this must touch nothing of the loop."""


class Crew:
    """Calls a step again and again, on one of two threads, until it says that it was the last.

    Args:
        step: returns False to end.
        look_s: how often it is looked whether the one on duty is away, in seconds.
    """

    def __init__(self, step: Callable[[], bool], look_s: float) -> None:
        self._step = step
        self._look_s = look_s
        self._duty = threading.Lock()
        self._is_begun = False
        # Who has the duty and is away, and since when; or None.
        self._away = 0
        self._away_since: float | None = None
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._serve, name=f"loop-{n}", daemon=True) for n in (1, 2)]

    def run(self) -> None:
        """Returns after the last step, even if a thread is still away then; raises what a step raised."""
        for thread in self._threads:
            thread.start()
        self._ended.wait()
        if self._error is not None:
            raise self._error

    def leave(self) -> None:
        """Offers the duty, as before something that may last; for the thread that has it."""
        self._away = threading.get_ident()
        self._away_since = time.monotonic()
        self._duty.release()

    def come_back(self) -> bool:
        """Takes the duty again; False if it is the other thread's now."""
        if not self._duty.acquire(blocking=False):
            return False
        if self._away != threading.get_ident():  # the other one took it, and is away itself now
            self._duty.release()
            return False
        self._away_since = None
        return True

    def _serve(self) -> None:
        while not self._ended.is_set():
            if not self._takes_duty():
                self._ended.wait(self._look_s)
                continue
            try:
                while not self._ended.is_set():
                    if not self._step():
                        self._ended.set()
            except RelievedError:
                continue
            except BaseException as error:  # noqa: BLE001 - it is raised where `run` was called
                self._error = error
                self._ended.set()
            self._duty.release()

    def _takes_duty(self) -> bool:
        since = self._away_since
        is_due = not self._is_begun if since is None else time.monotonic() - since > _AWAY_S
        if not is_due or not self._duty.acquire(blocking=False):
            return False
        if self._is_begun and self._away_since != since:  # back, and perhaps away again
            self._duty.release()
            return False
        self._is_begun = True
        self._away = 0
        self._away_since = None
        return True
