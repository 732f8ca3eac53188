"""What other threads want of the thread that turns a loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Inbox", "Work"]

# What is to be done; it gets the time in seconds, and answers for its own errors.
Work: TypeAlias = Callable[[float], object]


class Inbox:
    """Work in the order in which it was put here, from any thread, signal handler or finaliser."""

    __slots__ = ("_work",)

    def __init__(self) -> None:
        self._work: deque[Work] = deque()

    def __bool__(self) -> bool:
        return bool(self._work)

    def put(self, work: Work) -> None:
        """Has something done by whoever empties the inbox next."""
        self._work.append(work)

    def empty(self, now: float) -> None:
        """Does what is there. Behind the end of a node its callers do that themselves, maybe two at a time."""
        while self._work:
            try:
                work = self._work.popleft()
            except IndexError:  # another one was faster
                return
            work(now)
