"""Virtual time: one heap of events."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Timeline"]


class Timeline:
    """What is to happen, and when.

    Attributes:
        now: the instant of the present event, in seconds.
        events: how many have happened.
    """

    __slots__ = ("_heap", "_sequence", "events", "now")

    def __init__(self, start: float = 0.0) -> None:
        self.now = start
        self.events = 0
        self._sequence = 0
        self._heap: list[tuple[float, int, Callable[[], object]]] = []

    def at(self, when: float, do: Callable[[], object]) -> None:
        """Lets `do` happen at an instant, or next if that is past; of one instant, in the order of the asking."""
        self._sequence += 1
        heapq.heappush(self._heap, (max(when, self.now), self._sequence, do))

    def after(self, delay_s: float, do: Callable[[], object]) -> None:
        """Lets `do` happen in so many seconds."""
        self.at(self.now + delay_s, do)

    def step(self, until: float) -> bool:
        """Lets the next event happen; False, and the time is `until`, if there is none by then."""
        if not self._heap or self._heap[0][0] > until:
            self.now = max(self.now, until)
            return False
        self.now, _, do = heapq.heappop(self._heap)
        self.events += 1
        do()
        return True
