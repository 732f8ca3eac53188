"""What is to be done later, where a timing wheel would be too coarse."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Timers"]

T = TypeVar("T")


class Timers:
    """Calls to make, the earliest first, and of one instant in the order in which they were asked for.

    None is taken back: whoever is called looks whether there is still something to do.
    """

    __slots__ = ("_calls", "_sequence")

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, Callable[[Any, float], object], Any]] = []
        self._sequence = 0

    def at(self, when: float, do: Callable[[T, float], object], what: T) -> None:
        """Has `do` called with `what` and the time then."""
        self._sequence += 1
        heapq.heappush(self._calls, (when, self._sequence, do, what))

    def run(self, now: float) -> None:
        """Makes the calls that are due."""
        calls = self._calls
        while calls and calls[0][0] <= now:
            _, _, do, what = heapq.heappop(calls)
            do(what, now)

    def wake_at(self) -> float:
        """Returns when `run` is worth calling, or infinity."""
        return self._calls[0][0] if self._calls else math.inf
