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
        # Guards who is on duty, by the thread's number, and since when that one has been away, or None.
        self._change = threading.Lock()
        self._on_duty = 0
        self._away_since: float | None = 0.0
        self._absent: dict[int, None] = {}
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._serve, name=f"loop-{n}", daemon=True) for n in (1, 2)]

    @property
    def is_away(self) -> bool:
        """Whether a thread left and has not come back, on duty or not."""
        return bool(self._absent)

    def run(self) -> None:
        """Returns after the last step, even if a thread is still away then; raises what a step raised."""
        for thread in self._threads:
            thread.start()
        self._ended.wait()
        if self._error is not None:
            raise self._error

    def leave(self) -> None:
        """Offers the duty, as before something that may last; for the thread that has it."""
        self._absent[self._on_duty] = None
        self._away_since = time.monotonic()

    def come_back(self) -> bool:
        """Goes on with the duty; False if it is the other thread's now."""
        me = threading.get_ident()
        del self._absent[me]
        with self._change:
            if self._on_duty != me:
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

    def _takes_duty(self) -> bool:
        with self._change:
            # Nobody has been away longer than the one who never came.
            if self._away_since is None or time.monotonic() - self._away_since < _AWAY_S:
                return False
            self._on_duty = threading.get_ident()
            self._away_since = None
        return True
