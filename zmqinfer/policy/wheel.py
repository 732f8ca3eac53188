"""Deadlines in slots of 10 ms.

A timer for each request would cost more than the request. Here an entry is put into the slot
of its deadline and taken out again when the request completes, both in O(1), so the wheel's size
follows the requests in flight and not rate x deadline.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["SLOTS_PER_S", "TimingWheel"]

SLOTS_PER_S = 100

_NEVER = 2**62
Entry = TypeVar("Entry", bound=Hashable)


class TimingWheel(Generic[Entry]):
    """Entries by the slot in which they are due. An entry is in it once at most."""

    __slots__ = ("_earliest", "_slots", "_wake_at", "_wake_for")

    def __init__(self) -> None:
        self._slots: dict[int, dict[Entry, None]] = {}
        # No slot is earlier. It may be too early, after removals; then one wake-up finds nothing and mends it.
        self._earliest = _NEVER
        # The instant at which the slot `_wake_for` is due; asked for in each turn.
        self._wake_for = _NEVER
        self._wake_at = math.inf

    def __len__(self) -> int:
        return sum(len(slot) for slot in self._slots.values())

    def add(self, entry: Entry, at: float) -> int:
        """Puts `entry` in, due within 10 ms after `at`; returns its slot, which `remove` wants back."""
        number = int(at * SLOTS_PER_S) + 1
        slot = self._slots.get(number)
        if slot is None:
            self._slots[number] = {entry: None}
            if number < self._earliest:
                self._earliest = number
        else:
            slot[entry] = None
        return number

    def remove(self, entry: Entry, number: int) -> None:
        """Takes `entry` out of its slot; it must be there."""
        slot = self._slots[number]
        del slot[entry]
        if not slot:
            del self._slots[number]

    def expire(self, now: float) -> list[Entry]:
        """Takes out and returns what is due at `now`, earliest slots first."""
        present = int(now * SLOTS_PER_S)
        if present < self._earliest:
            return []
        due = sorted(number for number in self._slots if number <= present)
        expired = [entry for number in due for entry in self._slots.pop(number)]
        self._earliest = min(self._slots, default=_NEVER)
        return expired

    def wake_at(self) -> float:
        """Returns when `expire` is worth calling, infinity when the wheel is empty."""
        if not self._slots:
            return math.inf
        if self._wake_for != self._earliest:
            at = self._earliest / SLOTS_PER_S
            # 29 / 100 * 100 is less than 29: who slept until 0.29 would find nothing due, again and again.
            while int(at * SLOTS_PER_S) < self._earliest:
                at = math.nextafter(at, math.inf)
            self._wake_for, self._wake_at = self._earliest, at
        return self._wake_at

    def check(self) -> None:
        """Asserts that no slot is empty and that none is earlier than the next wake-up."""
        for number, slot in self._slots.items():
            assert slot, number
            assert number >= self._earliest, (number, self._earliest)
