"""Start-time fair queueing of owners, in rows (Goyal, Vin, Cheng 1996); within one the earliest deadline goes first.

Each owner has a start tag, which grows by the rows that it gets; the least goes first. Virtual time is the start tag
of the one that was served last, and one that comes begins there: it neither waits for what others had before, nor makes
up for what it did not ask for.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

__all__ = ["FairQueue", "Queued"]


class Queued(Protocol):
    """What the queue needs to know of a request."""

    deadline: float
    rows: int

    @property
    def owner(self) -> object:
        """Who sent it."""


W = TypeVar("W", bound=Queued)


class FairQueue(Generic[W]):
    """Who waits, by owner. Those gone are skipped when met."""

    __slots__ = ("_heaps", "_order", "_sequence", "_virtual_time")

    def __init__(self) -> None:
        self._virtual_time = 0.0
        self._sequence = 0
        # An owner whose heap is empty keeps its start tag until that is the least: who comes back soon still pays. So
        # owners themselves are kept: another one that got the id of one that is gone would pay its debt.
        self._heaps: dict[object, list[tuple[float, int, W]]] = {}
        self._order: list[tuple[float, int, object]] = []

    def put(self, waiter: W) -> None:
        """Lets one more wait."""
        self._sequence += 1
        owner = waiter.owner
        heap = self._heaps.get(owner)
        if heap is None:
            heap = self._heaps[owner] = []
            heapq.heappush(self._order, (self._virtual_time, self._sequence, owner))
        heapq.heappush(heap, (waiter.deadline, self._sequence, waiter))

    def first(self, is_here: Callable[[W], bool]) -> tuple[W | None, int]:
        """Returns who is next, None if nobody is, and how many were dropped that are not here any more."""
        dropped = 0
        while self._order:
            heap = self._heaps[self._order[0][2]]
            while heap and not is_here(heap[0][2]):
                heapq.heappop(heap)
                dropped += 1
            if heap:
                return heap[0][2], dropped
            del self._heaps[heapq.heappop(self._order)[2]]
        return None, dropped

    def pop(self) -> None:
        """Removes the one that `first` just returned."""
        heap = self._heaps[self._order[0][2]]
        self.charge(heapq.heappop(heap)[2].rows)

    def charge(self, rows: int) -> None:
        """Notes that the owner of the one that `first` just returned got rows."""
        self._virtual_time, _, owner = self._order[0]
        self._sequence += 1
        heapq.heapreplace(self._order, (self._virtual_time + rows, self._sequence, owner))

    def compact(self, is_here: Callable[[W], bool]) -> None:
        """Drops all that are not here any more, and owners that would begin where they are; start tags stay."""
        for heap in self._heaps.values():
            heap[:] = [entry for entry in heap if is_here(entry[2])]
            heapq.heapify(heap)
        self._order = [turn for turn in self._order if self._heaps[turn[2]] or turn[0] > self._virtual_time]
        heapq.heapify(self._order)
        self._heaps = {owner: self._heaps[owner] for _, _, owner in self._order}
