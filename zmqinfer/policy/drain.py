"""How fast a queue empties, and so how long who joins it will wait.

Measured only while there is a queue: then the engines do all they can, in batches as large as they get. What they
did before, at leisure, says nothing of that.
"""

from __future__ import annotations

__all__ = ["DrainRate"]

# A rate is of at least so long, and of at most about five times that.
_LEAST_S = 0.25
_WINDOW_S = 1.0


class DrainRate:
    """The rate of one queue.

    It is given a count that only grows, of all calls answered, so that answers need not be told to it one by one.
    """

    __slots__ = ("_before", "_since")

    def __init__(self) -> None:
        # Two marks, the older one first: when they were set, and the count then.
        self._before: tuple[float, int] | None = None
        self._since: tuple[float, int] | None = None

    def begin(self, now: float, answered: int) -> None:
        """Notes that a queue begins."""
        self._before = None
        self._since = now, answered

    def calls_per_s(self, now: float, answered: int) -> float | None:
        """Returns the rate at which calls leave, or None if the queue is too young to tell."""
        if self._since is None:
            return None
        if now - self._since[0] >= _WINDOW_S:
            self._before, self._since = self._since, (now, answered)
        at, count = self._before or self._since
        return (answered - count) / (now - at) if now - at >= _LEAST_S else None
