"""How much waits before a request that comes, given the order of `waiting`: priorities, turns, deadlines."""

from __future__ import annotations

__all__ = ["Backlog"]

# Deadlines are distinguished by so much: a owner's calls have few budgets, and a sum over slots is quick.
_SLOTS_PER_S = 10


class _Level:
    """The rows that wait of one priority."""

    __slots__ = ("owners", "rows")

    def __init__(self) -> None:
        self.rows = 0
        # By owner those of each slot of deadlines.
        self.owners: dict[int, dict[int, int]] = {}


class Backlog:
    """Rows that wait, by priority, owner and deadline."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: dict[int, _Level] = {}

    def add(self, priority: int, owner: object, deadline: float, rows: int) -> None:
        """Counts rows in, or out if they are less than zero."""
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level()
        level.rows += rows
        slots = level.owners.setdefault(id(owner), {})
        slot = int(deadline * _SLOTS_PER_S)
        left = slots.get(slot, 0) + rows
        if left:
            slots[slot] = left
            return
        slots.pop(slot, None)
        if not slots:
            del level.owners[id(owner)]
            if not level.owners:
                del self._levels[priority]

    def ahead_of(self, priority: int, owner: object, deadline: float, rows: int) -> int:
        """Returns how many rows are served before `rows` more of a owner have been, those not counted.

        All that is more urgent, what the owner itself waits for with no later a deadline, and of every other owner
        as much as this one gets. It may be less: not every other one has so much, and who has waited long enough
        is more urgent than its priority.
        """
        ahead = 0
        for urgency, level in self._levels.items():
            if urgency < priority:
                ahead += level.rows
            elif urgency == priority:
                slots = level.owners.get(id(owner), {})
                last = int(deadline * _SLOTS_PER_S)
                own = sum(count for slot, count in slots.items() if slot <= last)
                others = len(level.owners) - bool(slots)
                ahead += own + min(level.rows - sum(slots.values()), others * (own + rows))
        return ahead

    def clear(self) -> None:
        """Forgets all."""
        self._levels.clear()

    @property
    def rows(self) -> int:
        """How many wait."""
        return sum(level.rows for level in self._levels.values())

    def check(self) -> None:
        """Asserts that the counts agree with each other."""
        for level in self._levels.values():
            assert all(rows > 0 for slots in level.owners.values() for rows in slots.values())
            assert level.rows == sum(sum(slots.values()) for slots in level.owners.values()) > 0
