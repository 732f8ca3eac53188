"""Calls of a client that were refused and are asked again after a pause. Their blocks keep them meanwhile."""

from __future__ import annotations

from zmqinfer.errors import Status
from zmqinfer.machine.client.call import Block
from zmqinfer.machine.client.pending import Pending
from zmqinfer.machine.client.sessions import PARTING, Sessions
from zmqinfer.policy.retry import MAX_ATTEMPTS, RetryBudget, pause_s
from zmqinfer.policy.timers import Timers
from zmqinfer.records import MAX_CALLS, PLACES, RAN, RAN_NO, RETRY_AFTER_MS, STATUS, Record

__all__ = ["Repeats"]


class Repeats:
    """Which refused calls are repeated, and when.

    Attributes:
        budget: earned by first attempts, spent by repeats.
        timers: the ends of the pauses.
    """

    __slots__ = ("_pending", "_sessions", "budget", "timers")

    def __init__(self, pending: Pending, sessions: Sessions, now: float) -> None:
        self.budget = RetryBudget(now)
        self.timers = Timers()
        self._pending = pending
        self._sessions = sessions

    def takes(self, block: Block, record: Record, now: float) -> bool:
        """Whether calls that a REPLY refused are asked for again, rather than ended."""
        status, places = record[STATUS], record[PLACES]
        is_again = block.is_again(places)
        # One of the times that it was sent says nothing of the others.
        if record[RAN] != RAN_NO or (is_again and not self._sessions.may_run_twice(block)):
            return False
        # A gateway without a worker has waited for one already.
        if status != Status.OVERLOADED and (status != Status.UNAVAILABLE or not self._sessions.others(block)):
            return False
        attempt = block.attempt_of(places)
        if attempt >= MAX_ATTEMPTS:
            return False
        ends_at = now + pause_s(self._pending.request_id(block.tag * MAX_CALLS), attempt, record[RETRY_AFTER_MS])
        if ends_at >= block.deadline or not self.budget.spend(places.bit_count(), now):
            return False
        self.timers.at(ends_at, self._ask_again, (block, places))
        block.resting |= places
        if not is_again:
            block.unrun |= places
        return True

    def _ask_again(self, rested: tuple[Block, int], _now: float) -> None:
        """Asks another gateway, if nothing of the block is at this one."""
        block, places = rested
        if self._pending.block(block.tag) is not block:
            return  # all of its calls have ended
        others = self._sessions.others(block)
        has_nothing = block.is_at_rest()
        if others and has_nothing:
            block.link = others[block.tag % len(others)]
        block.asks_again(places)
        if block.is_held:
            return  # it leaves with what is held
        if has_nothing and self._sessions.links[block.link].state in PARTING:
            block.is_held = True
            if block.sends == 1:
                block.sends = 0  # the only time that it was sent it did not run
            return
        self._sessions.send_calls(block, places & block.pending())
