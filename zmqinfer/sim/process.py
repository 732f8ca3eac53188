"""A node's process: it runs turns of a loop, and may be frozen or killed between two of them."""

from __future__ import annotations

from functools import partial
from typing import Any

from zmqinfer.loop.dialler import Dialler
from zmqinfer.loop.gateway import GatewayLoop
from zmqinfer.sim.timeline import Timeline

__all__ = ["Process"]

# A loop in production polls no longer than this, so it knows of a pause of its own by then.
_LONGEST_POLL_S = 1.0


class Process:
    """What every node's process has in common.

    Attributes:
        name: unlike that of any other process, earlier lives of the same node included.
        is_alive: until it is killed or ends.
        is_frozen: whether it is stopped, as by SIGSTOP; its connections are then silent.
        counted: knows how many records have come in the present turn.
    """

    # What a turn, and a record in it, take the processor. Measured: PERFORMANCE.md, "Where the time goes".
    turn_s = record_s = 0.0
    counted: Dialler[Any] | GatewayLoop

    def __init__(self, name: str, timeline: Timeline) -> None:
        self.name = name
        self.timeline = timeline
        self.is_alive = True
        self.is_frozen = False
        self.resumed_at = float("-inf")
        self._frozen_at = float("inf")
        self._is_roused = False
        self._busy_until = timeline.now
        self._ended_at = timeline.now
        self._due: float | None = None

    # For the kinds of nodes -----------------------------------------------------------------------

    def turn(self, now: float, gap: float) -> float | None:
        """Does a turn of the node's loop; returns when the next one is due if nothing comes before.

        Args:
            gap: how long the node was not looking before, in seconds.
        """
        raise NotImplementedError

    def busy_s(self) -> float:
        """Returns how long the present turn has taken the processor so far."""
        return self.turn_s + self.record_s * self.counted.records

    def departs_at(self) -> float:
        """Returns when what is sent now leaves."""
        return self.timeline.now + self.busy_s()

    def on_lost(self) -> None:
        """Notes that a gateway has lost a connection that this process dialled, or will soon."""

    def on_death(self) -> None:
        """Lets go of what a process has beside its connections."""
        self.on_lost()

    # The loop -------------------------------------------------------------------------------------

    def rouse(self) -> None:
        """Lets the loop do a turn as soon as it can."""
        if not self._is_roused and self.is_alive:
            self._is_roused = True
            if not self.is_frozen:
                self.timeline.at(self._busy_until, self._run)

    def _run(self) -> None:
        if not (self.is_alive and self._is_roused) or self.is_frozen:
            return
        now = self.timeline.now
        if now < self._busy_until:
            self.timeline.at(self._busy_until, self._run)
            return
        self._is_roused = False
        # Until when it would have slept, had it not been stopped.
        awake_by = min(float("inf") if self._due is None else self._due, self._frozen_at + _LONGEST_POLL_S)
        gap = max(0.0, now - max(awake_by, self._ended_at))
        self._frozen_at = float("inf")
        asked_for = self._due
        due = self._due = self.turn(now, gap)
        self._busy_until = self._ended_at = now + self.busy_s()
        if due is not None and (due != asked_for or due <= now):
            self.timeline.at(due, partial(self._on_due, due))

    def _on_due(self, due: float) -> None:
        if self._due == due:  # it was not put off since
            self.rouse()

    # What is done to it ---------------------------------------------------------------------------

    def freeze(self) -> None:
        """Stops it, as SIGSTOP does."""
        self.is_frozen = True
        self._frozen_at = self.timeline.now

    def thaw(self) -> None:
        """Lets it go on."""
        self.is_frozen = False
        self.resumed_at = self.timeline.now
        self._is_roused = False
        self.rouse()

    def die(self) -> None:
        """Ends it between two turns; its connections are the network's affair."""
        self.is_alive = False
        self.on_death()
