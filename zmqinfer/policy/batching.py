"""When a batch closes, and what is in it.

Requests of one model and version whose layouts agree may run together. A batch runs when the
engine is free and

    it is full, in rows or bytes,
    or the policy says that nothing is gained by waiting,
    or its oldest request has waited `max_wait_s`, counted from that *first* request,
    or waiting longer would cost one of its requests the deadline.

A batch that has to wait for the engine goes on growing until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from zmqinfer.policy.curve import Curve, Rate

__all__ = ["BatchLimits", "Batcher", "Item"]

# The load up to which a smaller batch is thought to keep up with the arrivals.
_TARGET_LOAD = 0.95
# The shells' timers count in milliseconds: who waits less than two waits for nothing but the timer.
_LEAST_WAIT_S = 0.002


class Item(Protocol):
    """What the batcher needs to know of a request; one of several calls has a row for each and may be divided."""

    calls: int
    rows: int
    size: int
    deadline: float
    arrived_at: float
    is_waiting: bool

    def cut(self, calls: int) -> Self:
        """Takes the first calls off into an item of their own."""


I = TypeVar("I", bound=Item)  # noqa: E741 - the field's word is too long for a type variable


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of a batch, and the policy's name.

    Attributes:
        max_rows: a batch has no more; a single request has no more either.
        max_bytes: a batch of several requests has no more.
        max_wait_s: a free engine makes nobody wait longer than that.
        is_timed: wait for a full batch or for `max_wait_s`, whatever the curve says.
    """

    max_rows: int = 32
    max_wait_s: float = 0.020
    is_timed: bool = False
    max_bytes: int = 64 * 2**20


class _Group(Generic[I]):
    """The waiting requests of one layout, oldest first."""

    __slots__ = ("bytes", "items", "next_deadline", "rows")

    def __init__(self) -> None:
        self.items: deque[I] = deque()
        self.rows = 0
        self.bytes = 0
        # No item's deadline is earlier. It may be too early after removals: that only ends a wait too soon.
        self.next_deadline = float("inf")


class Batcher(Generic[I]):
    """The requests that wait for one engine."""

    __slots__ = ("_groups", "_limits", "_was_busy", "curve", "rate", "rows")

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._groups: dict[Hashable, _Group[I]] = {}
        self._was_busy = False
        self.curve = Curve()
        self.rate = Rate()
        self.rows = 0

    def offer(self, item: I, layout: Hashable) -> None:
        """Adds a request to those of its layout."""
        group = self._groups.get(layout)
        if group is None:
            group = self._groups[layout] = _Group()
        item.is_waiting = True
        group.items.append(item)
        group.rows += item.rows
        group.bytes += item.size
        self.rows += item.rows
        if item.deadline < group.next_deadline:
            group.next_deadline = item.deadline

    def remove(self, item: I, layout: Hashable) -> None:
        """Takes a waiting request out, as when its caller cancels it."""
        group = self._groups[layout]
        group.items.remove(item)
        self._shrink(layout, group, item)

    def divide(self, item: I, head: I, layout: Hashable) -> None:
        """Lets `head`, which was cut off from a waiting request, wait in front of it."""
        items = self._groups[layout].items
        items.insert(items.index(item), head)

    def expire(self, now: float) -> list[I]:
        """Takes out and returns the requests whose time is up."""
        expired: list[I] = []
        for layout, group in list(self._groups.items()):
            if group.next_deadline <= now:
                late = [item for item in group.items if item.deadline <= now]
                if late:
                    group.items = deque(item for item in group.items if item.deadline > now)
                group.next_deadline = min((item.deadline for item in group.items), default=float("inf"))
                for item in late:
                    self._shrink(layout, group, item)
                expired += late
        return expired

    def _shrink(self, layout: Hashable, group: _Group[I], item: I) -> None:
        item.is_waiting = False
        group.rows -= item.rows
        group.bytes -= item.size
        self.rows -= item.rows
        if not group.items:
            self._groups.pop(layout, None)

    def take(self, now: float) -> tuple[Hashable, list[I], int] | None:
        """Returns the batch that a free engine should run now, between its layout and its rows, or None to wait.

        At most `max_rows` rows, oldest first; the rest stay and keep their own arrival times. The last
        one may have been cut off from a request of several calls, which keeps the others.
        """
        best: tuple[Hashable, _Group[I]] | None = None
        for layout, group in self._groups.items():
            is_older = best is None or group.items[0].arrived_at < best[1].items[0].arrived_at
            if is_older and self._is_due(group, now):
                best = layout, group
        if best is None:
            # An engine that waits for company is not idle: else the next look would end the wait.
            self._was_busy = self._was_busy and bool(self._groups)
            return None
        self._was_busy = True
        layout, group = best
        return layout, *self._cut(layout, group)

    def _cut(self, layout: Hashable, group: _Group[I]) -> tuple[list[I], int]:
        limits = self._limits
        items = group.items
        if group.rows <= limits.max_rows and group.bytes <= limits.max_bytes:
            batch = list(items)
            del self._groups[layout]
            self.rows -= group.rows
            for item in batch:
                item.is_waiting = False
            return batch, group.rows
        batch = []
        rows = size = 0
        while items and rows < limits.max_rows and size < limits.max_bytes:
            item = items[0]
            room = limits.max_rows - rows
            if item.size > limits.max_bytes - size:
                room = min(room, (limits.max_bytes - size) * item.rows // item.size)
            if item.rows <= room or (item.calls == 1 and not batch):
                items.popleft()
            elif item.calls > 1 and (room > 0 or not batch):
                item = item.cut(max(room, 1))
            else:
                break
            item.is_waiting = False
            rows += item.rows
            size += item.size
            batch.append(item)
        group.rows -= rows
        group.bytes -= size
        self.rows -= rows
        if items:
            group.next_deadline = min(item.deadline for item in items)
        else:
            del self._groups[layout]
        return batch, rows

    def wake_at(self) -> float:
        """Returns when a free engine that `take` gave nothing should ask again, or infinity."""
        return min((self._due_at(group) for group in self._groups.values()), default=float("inf"))

    def _is_due(self, group: _Group[I], now: float) -> bool:
        return (
            group.rows >= self._limits.max_rows
            or group.bytes >= self._limits.max_bytes
            # An engine that was idle has no reason to expect company.
            or not (self._was_busy or self._limits.is_timed)
            or self._due_at(group) <= now
        )

    def _due_at(self, group: _Group[I]) -> float:
        """The instant at which a group runs even if nobody joins it."""
        oldest_at = group.items[0].arrived_at
        patience = self._limits.max_wait_s if self._limits.is_timed else self._worth_waiting(group.rows)
        latest = group.next_deadline - 2 * self.curve.predict(group.rows)
        return min(oldest_at + patience, max(latest, oldest_at))

    def _worth_waiting(self, rows: int) -> float:
        """How long after its oldest request a batch of `rows` should wait under the adaptive policy, in seconds.

        Not at all, unless batches of this size cannot keep up with the arrivals. Then until the
        missing rows should have come, but never longer than the fixed cost that they would share.
        An engine that was idle has no reason to expect company.
        """
        if not self._was_busy:
            return 0.0
        rate = self.rate.rows_per_s
        curve = self.curve
        spare = _TARGET_LOAD - rate * curve.b_s
        wanted = rate * curve.a_s / spare if spare > 0 else self._limits.max_rows
        missing = min(wanted, self._limits.max_rows) - rows
        if missing < 1 or rate <= 0:
            return 0.0
        patience = min(missing / rate, curve.a_s, self._limits.max_wait_s)
        return patience if patience >= _LEAST_WAIT_S else 0.0

    def check(self) -> None:
        """Asserts that the sums agree with the items."""
        for group in self._groups.values():
            assert group.items
            assert group.rows == sum(item.rows for item in group.items)
            assert group.bytes == sum(item.size for item in group.items)
            assert all(item.is_waiting for item in group.items)
            assert group.next_deadline <= min(item.deadline for item in group.items)
        assert self.rows == sum(group.rows for group in self._groups.values())
