"""In which order requests wait when no worker can take them.

Within a priority the owners take turns (`fair_queue`), so that one of them cannot starve the others; within
one owner the earliest deadline goes first. Of the next ones of two priorities the more urgent goes
first, unless the other has waited long enough to make up for it: half a second a level. A request
with a routing key may wait for its own worker for a while (`home`), then it takes any.
"""

from __future__ import annotations

import heapq
import math
from typing import Generic, Protocol, TypeVar

from zmqinfer.policy.backlog import Backlog
from zmqinfer.policy.fair_queue import FairQueue, Queued

__all__ = ["Waiter", "WaitingRoom"]

# Who waits so long is as urgent as the next priority, so that nobody waits for ever.
_LEVEL_S = 0.5


class Waiter(Queued, Protocol):
    """What the room needs to know of a request."""

    calls: int
    size: int
    # Set by the room: the only worker that it waits for, and until when.
    home: str | None
    leaves_home_at: float
    is_waiting: bool
    # Set by the room: when it came, later by half a second for each level of its priority. The least goes first.
    rank: float

    @property
    def priority(self) -> int:
        """From 1, the most urgent."""


W = TypeVar("W", bound=Waiter)


class _Lane(Generic[W]):
    """One order of waiting: priorities, owners in turn, deadlines. Those gone are skipped when met."""

    __slots__ = ("_levels", "_next", "home", "stale")

    def __init__(self, home: str | None) -> None:
        self.home = home
        self.stale = 0
        # The priority of the one that `best` named last.
        self._next = 0
        self._levels: dict[int, FairQueue[W]] = {}

    def _is_here(self, waiter: W) -> bool:
        return waiter.is_waiting and waiter.home == self.home

    def put(self, waiter: W) -> None:
        queue = self._levels.get(waiter.priority)
        if queue is None:
            queue = self._levels[waiter.priority] = FairQueue()
        queue.put(waiter)

    def best(self) -> W | None:
        """Returns who is next, still in its place; drops those who left or moved to another lane."""
        found: W | None = None
        for priority, queue in list(self._levels.items()):
            waiter, dropped = queue.first(self._is_here)
            self.stale -= dropped
            if waiter is None:
                del self._levels[priority]
            elif found is None or waiter.rank < found.rank:
                found = waiter
                self._next = priority
        return found

    def pop(self) -> None:
        """Removes the one that `best` just returned."""
        self._levels[self._next].pop()

    def charge(self, rows: int) -> None:
        """Notes that the owner of the one that `best` just returned got a part of it."""
        self._levels[self._next].charge(rows)

    def compact(self) -> None:
        """Drops all that have left; called when they are the majority, so it costs O(1) each. Turns stay."""
        self.stale = 0
        for queue in self._levels.values():
            queue.compact(self._is_here)


class WaitingRoom(Generic[W]):
    """The requests that wait for one model.

    Attributes:
        count: how many calls wait; an attribute, for it is asked for each request and reply (30 ns, `len` took 65).
        bytes: the size of their bodies.
        backlog: who would be before one that came now.
    """

    __slots__ = ("_at_home", "_entered", "_lanes", "_sizes", "backlog", "bytes", "count")

    def __init__(self) -> None:
        self._lanes: dict[str | None, _Lane[W]] = {}
        self._sizes: dict[str | None, int] = {}
        # A heap of those who wait for their own worker, of one instant in the order in which they came.
        self._at_home: list[tuple[float, int, W]] = []
        self._entered = 0
        self.backlog = Backlog()
        self.count = 0
        self.bytes = 0

    def __len__(self) -> int:
        return self.count

    def put(self, waiter: W, now: float, home: str | None = None, until: float = 0.0) -> None:
        """Lets `waiter` wait: for the worker named `home` alone until that instant, or for anyone."""
        waiter.is_waiting = True
        waiter.rank = now + _LEVEL_S * waiter.priority
        waiter.leaves_home_at = until
        self._count(waiter, 1)
        self._enter(waiter, home)

    def _count(self, waiter: W, sign: int) -> None:
        self.count += sign * waiter.calls
        self.bytes += sign * waiter.size
        self.backlog.add(waiter.priority, waiter.owner, waiter.deadline, sign * waiter.rows)

    def _enter(self, waiter: W, home: str | None) -> None:
        waiter.home = home
        lane = self._lanes.get(home)
        if lane is None:
            lane = self._lanes[home] = _Lane(home)
            self._sizes[home] = 0
        lane.put(waiter)
        self._sizes[home] += waiter.calls
        if home is not None:
            self._entered += 1
            heapq.heappush(self._at_home, (waiter.leaves_home_at, self._entered, waiter))

    def best(self, worker: str) -> W | None:
        """Returns who should take a free credit of `worker`, without removing it.

        The one who waits for this worker, for whom no other will do, unless one who waits for anyone is more
        urgent by a level.
        """
        at_home = self._lanes[worker].best() if worker in self._lanes else None
        anyone = self._lanes[None].best() if None in self._lanes else None
        if at_home is None or (anyone is not None and anyone.rank + _LEVEL_S <= at_home.rank):
            return anyone
        return at_home

    def take(self, waiter: W) -> None:
        """Removes the one that `best` just returned."""
        self._lanes[waiter.home].pop()
        waiter.is_waiting = False
        self._count(waiter, -1)
        self._leave(waiter.home, waiter.calls)

    def take_part(self, waiter: W, head: W) -> None:
        """Removes `head`, which was cut off from the one that `best` just returned and that waits on."""
        self._sizes[waiter.home] -= head.calls
        self._count(head, -1)
        self._lanes[waiter.home].charge(head.rows)

    def divide(self, waiter: W, head: W) -> None:
        """Lets `head`, which was cut off from `waiter`, wait beside it."""
        head.is_waiting = True
        head.rank, head.leaves_home_at = waiter.rank, waiter.leaves_home_at
        self._sizes[waiter.home] -= head.calls
        self._enter(head, waiter.home)

    def remove(self, waiter: W) -> None:
        """Removes anyone who waits: expired, or cancelled."""
        waiter.is_waiting = False
        self._count(waiter, -1)
        self._vacate(waiter.home, waiter.calls)

    def _vacate(self, home: str | None, calls: int) -> None:
        """Counts one out whose entry stays in its lane until it is met, or until most entries are such."""
        lane = self._lanes[home]
        lane.stale += 1
        self._leave(home, calls)
        if home in self._lanes and lane.stale > 32 + self._sizes[home]:
            lane.compact()

    def _leave(self, home: str | None, calls: int) -> None:
        self._sizes[home] -= calls
        if not self._sizes[home]:
            del self._lanes[home], self._sizes[home]

    def release(self, home: str) -> None:
        """Lets those who waited for a worker that is gone wait for anyone."""
        lane = self._lanes.pop(home, None)
        self._sizes.pop(home, None)
        while lane is not None and (waiter := lane.best()) is not None:
            lane.pop()
            self._enter(waiter, None)

    def expire_homes(self, now: float) -> bool:
        """Lets those whose time of waiting for their own worker is over wait for anyone; True if any did."""
        moved = False
        while self._at_home and self._at_home[0][0] <= now:
            waiter = heapq.heappop(self._at_home)[2]
            if waiter.is_waiting and waiter.home is not None:
                home = waiter.home
                self._enter(waiter, None)
                self._vacate(home, waiter.calls)
                moved = True
        return moved

    def clear(self) -> list[W]:
        """Removes and returns all who wait, in an order that keeps turns and deadlines."""
        everyone: list[W] = []
        for home in list(self._lanes):
            if home is not None:
                self.release(home)
        lane = self._lanes.get(None)
        while lane is not None and (waiter := lane.best()) is not None:
            lane.pop()
            waiter.is_waiting = False
            everyone.append(waiter)
        self._lanes.clear()
        self._sizes.clear()
        self._at_home.clear()
        self.backlog.clear()
        self.count = self.bytes = 0
        return everyone

    def wake_at(self) -> float:
        """Returns when `expire_homes` is worth calling, or infinity."""
        return self._at_home[0][0] if self._at_home else math.inf

    def check(self) -> None:
        """Asserts that the counts agree with each other."""
        assert self.count == sum(self._sizes.values()), (self.count, self._sizes)
        self.backlog.check()
        assert bool(self.count) == bool(self.backlog.rows)
        assert self._sizes.keys() == self._lanes.keys()
        assert all(size > 0 for size in self._sizes.values()), self._sizes
