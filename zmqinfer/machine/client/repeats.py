"""Calls of a client that were refused and are asked again after a pause."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from zmqinfer.errors import Status
from zmqinfer.policy.retry import MAX_ATTEMPTS, RetryBudget, pause_s
from zmqinfer.records import CALLS, RETRY_AFTER_MS, STATUS, Record

if TYPE_CHECKING:
    from zmqinfer.machine.client.call import Block

__all__ = ["Repeats"]


class Repeats:
    """Which refused calls are repeated, and when. Their blocks keep them meanwhile."""

    __slots__ = ("_budget", "_resting", "_sequence")

    def __init__(self, now: float) -> None:
        self._budget = RetryBudget(now)
        # Pauses by when they end: of which block, and of its calls at which places.
        self._resting: list[tuple[float, int, Block, int]] = []
        self._sequence = 0

    def earn(self, calls: int) -> None:
        """Notes first attempts, which earn repeats."""
        self._budget.earn(calls)

    def takes(self, block: Block, record: Record, request_id: bytes, now: float, *, has_others: bool) -> bool:
        """Whether calls that a REPLY refused are repeated; then they rest until `due` names them.

        Args:
            request_id: of their block.
            has_others: whether another gateway is up. One without a worker has waited for one already.
        """
        status = record[STATUS]
        if status != Status.OVERLOADED and (status != Status.UNAVAILABLE or not has_others):
            return False
        places = record[CALLS]
        attempt = block.attempt_of(places)
        if attempt >= MAX_ATTEMPTS:
            return False
        ends_at = now + pause_s(request_id, attempt, record[RETRY_AFTER_MS])
        if ends_at >= block.deadline or not self._budget.spend(places.bit_count(), now):
            return False
        self._sequence += 1
        heapq.heappush(self._resting, (ends_at, self._sequence, block, places))
        return True

    def due(self, now: float) -> list[tuple[Block, int]]:
        """Removes and returns what is to be sent again: blocks, and the places of their calls."""
        found = []
        while self._resting and self._resting[0][0] <= now:
            found.append(heapq.heappop(self._resting)[2:])
        return found

    def wake_at(self) -> float | None:
        """Returns when `due` is worth asking."""
        return self._resting[0][0] if self._resting else None
